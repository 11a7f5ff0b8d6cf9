"""Plan of a sweep on disk (`plan.json` in its Hydra folder): its runs, also those that have not started."""

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from hydra.conf import HydraConf

from xlora_bench.runs.command_line import CommandLine
from xlora_bench.sweeps.planning.jobs import PlannedRun
from xlora_bench.system.io import write_atomically

log = logging.getLogger(__name__)

FILE = "plan.json"


@dataclass(frozen=True, kw_only=True)
class SweepPlan:
    """The runs of a sweep by job number, as far as they are known, and its command line."""

    command_line: CommandLine
    runs: tuple[PlannedRun, ...]

    @classmethod
    def of(cls, hydra: HydraConf, runs: Sequence[PlannedRun]) -> Self:
        """Return the plan of the sweep of a composed `hydra` node."""
        return cls(command_line=CommandLine.of(hydra), runs=tuple(runs))

    def write(self, folder: Path) -> None:
        """Write the plan to the Hydra folder of the sweep."""
        content = {**asdict(self.command_line), "runs": [asdict(run) for run in self.runs]}
        write_atomically(folder / FILE, json.dumps(content, indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """Return the plan in the file `path`; None, with a warning, if it cannot be read."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            runs = [
                PlannedRun(overrides=tuple(run["overrides"]), tuning=tuple(run["tuning"])) for run in content["runs"]
            ]
            return cls(command_line=CommandLine.from_json(content), runs=tuple(runs))
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("the plan %s cannot be read (%s); its runs are listed once they have started", path, error)
            return None
