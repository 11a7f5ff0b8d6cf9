"""Command line of a run: what its overrides do not say, and what it takes to train the run again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from hydra.conf import HydraConf

KEPT = ("hydra/launcher=", "hydra.launcher.", "hydra.searchpath=")
"""Hydra overrides that a second start of the run needs; the others name folders and the sweeper of the first."""


@dataclass(frozen=True, kw_only=True)
class CommandLine:
    """Primary config, `--config-dir` (None: not given), and the Hydra overrides that start with one of `KEPT`."""

    config_name: str
    config_dir: str | None
    hydra: tuple[str, ...]

    @classmethod
    def of(cls, hydra: HydraConf) -> Self:
        """Return the command line of a composed `hydra` node."""
        dirs = [source.path for source in hydra.runtime.config_sources if source.provider == "command-line"]
        return cls(
            config_name=str(hydra.job.config_name),
            config_dir=dirs[0] if dirs else None,
            hydra=tuple(line for line in hydra.overrides.hydra if line.startswith(KEPT)),
        )

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Return the command line whose fields are in `content`, the other entries aside."""
        return cls(config_name=content["config_name"], config_dir=content["config_dir"], hydra=tuple(content["hydra"]))

    def without_launcher(self) -> Self:
        """Return it without a launcher and its options."""
        return replace(self, hydra=tuple(line for line in self.hydra if not line.startswith(KEPT[:2])))

    def words(self) -> list[str]:
        """Return the words of the program's command line for a sweep: options, then Hydra overrides."""
        config_dir = ["--config-dir", self.config_dir] if self.config_dir else []
        return ["--multirun", "--config-name", self.config_name, *config_dir, *self.hydra]


def without_keys(overrides: Sequence[str], keys: Sequence[str]) -> list[str]:
    """Return overrides but for those of the given keys."""
    return [line for line in overrides if line.partition("=")[0] not in keys]
