"""The side of `hydra/launcher=ray` that runs on the nodes of the cluster: one job of a sweep as a task.

Where the node sees the results folder, a task trains as a local worker does. Where it does not, it trains in a folder
of its node, and the run comes home in the result of the task. Until then its attempt comes home after each epoch, so
that another node can go on from it.
"""

import hashlib
import json
import logging
import os
import secrets
import shutil
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext
from omegaconf import DictConfig, open_dict

from xlora_bench.runs.parcel import packed, publish_packed
from xlora_bench.runs.record import RECORD, Record, finished, record_paths
from xlora_bench.runs.run import attempts_folder, newest_number, progress_path
from xlora_bench.runs.sent_attempts import keep_attempt, packed_attempt
from xlora_bench.runs.sweep_context import away_from_home, leave_sweep
from xlora_bench.sweeps.launchers.launcher import enter, run_one
from xlora_bench.sweeps.launchers.sent_errors import portable
from xlora_bench.sweeps.launchers.workers import THREADS

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Home:
    """The results folder of the sweep, and the file by whose content a node knows that it sees this folder."""

    results_dir: Path
    mark: Path
    content: str
    shared: bool | None
    work_dir: str
    folder: str = field(default_factory=os.getcwd)
    path: tuple[str, ...] = field(default_factory=lambda: tuple(sys.path))

    @classmethod
    def of(cls, results_dir: Path, shared: bool | None, work_dir: str) -> "Home":
        """Write the file."""
        results_dir.mkdir(parents=True, exist_ok=True)
        mark, content = results_dir / f".{secrets.token_hex(4)}.tmp", secrets.token_hex(8)
        mark.write_text(content)
        return cls(results_dir=results_dir, mark=mark, content=content, shared=shared, work_dir=work_dir)

    @property
    def is_here(self) -> bool:
        """Whether this machine sees the folder."""
        if self.shared is not None:
            return self.shared
        try:
            return self.mark.read_text() == self.content
        except OSError:
            return False

    def ends(self) -> dict[str, str]:
        """Return the time `finished` of each finished record, by run id."""
        records = [finished(path) for path in record_paths(self.results_dir)]
        return {record.run_id: record.finished for record in records if record is not None}

    def folder_of(self, run_id: str) -> Path:
        """Return the folder of a run."""
        return self.results_dir / "runs" / run_id

    def attempts(self) -> dict[str, int]:
        """Return the number of the last attempt at each run here, by run id."""
        ids = [path.name for path in self.results_dir.glob("attempts/*/")]
        return {run_id: number for run_id in ids if (number := newest_number(self.folder_of(run_id)))}


class AttemptKeeper:
    """An actor on the machine of the results folder: writes the attempts that come from nodes that do not see it."""

    def __init__(self, home: Home) -> None:
        self.home = home

    def keep(self, run_id: str, number: int, content: bytes) -> None:
        """Write a packed attempt, unless the run has ended."""
        folder = self.home.folder_of(run_id)
        try:
            if finished(folder / RECORD) is None:
                keep_attempt(content, attempts_folder(folder), number)
        except OSError as error:
            log.warning("the checkpoint of run %s cannot be kept: %s", run_id, error)


@dataclass(frozen=True, kw_only=True)
class Sent:
    """What a task gets from the results folder, by run id: packed runs that it may start from, and packed attempts.

    An attempt is its number and its archive; None if the run starts over. `kept` has the number of the last attempt at
    each run there; `keeper` is the actor of an `AttemptKeeper`.
    """

    runs: Mapping[str, bytes] = field(default_factory=dict)
    attempts: Mapping[str, tuple[int, bytes] | None] = field(default_factory=dict)
    kept: Mapping[str, int] = field(default_factory=dict)
    keeper: Any = None


class NewRun(NamedTuple):
    """A run that a task has trained, packed, and the time `finished` of the record at home that it replaces."""

    content: bytes
    replaces: str | None


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a task returns: its `JobReturn`, when it started, and from a folder of its node the runs and `run.json`."""

    job_return: JobReturn
    started: float
    runs: Mapping[str, NewRun] = field(default_factory=dict)
    announced: bytes | None = None


def run_on_node(shared: bytes, config: DictConfig, home: Home, ends: Mapping[str, str], sent: Sent) -> Result:
    """Run a job on a node of the cluster. `ends` has the time `finished` of each run that is at home."""
    import torch  # noqa: PLC0415 - slow to import

    enter_folder(home)
    torch.set_num_threads(int(os.environ[THREADS[0]]))
    sweep, started = enter(shared), time.time()
    callbacks = JobStart(sweep.hydra_context.callbacks)
    context = HydraContext(config_loader=sweep.hydra_context.config_loader, callbacks=callbacks)  # type: ignore[arg-type]
    sweep = replace(sweep, hydra_context=context)
    if home.is_here:
        return Result(job_return=portable_return(run_one(sweep, config)), started=started)
    folder = node_folder(home)
    remove_earlier_runs(folder, home, ends)
    for run_id, content in sent.runs.items():
        here = finished(folder / "runs" / run_id / RECORD)
        publish_packed(content, folder / "runs" / run_id, replaces=here.finished if here else None)
    for run_id, attempt in sent.attempts.items():
        if attempt is not None:
            keep_attempt(attempt[1], attempts_folder(folder / "runs" / run_id), attempt[0])
    with open_dict(config):
        config.paths.results_dir = str(folder)
        config.hydra.sweep.dir = str(folder / "jobs" / f"{os.getpid()}")
    with away_from_home(
        {run_id: ended for run_id, ended in ends.items() if run_id not in sent.runs},
        attempts={run_id: number for run_id, number in sent.kept.items() if run_id not in sent.attempts},
        send=None if sent.keeper is None else AttemptSender(sent.keeper),
    ):
        job_return = portable_return(run_one(sweep, config))
    path = Path(str(config.hydra.sweep.dir)) / str(config.hydra.sweep.subdir) / "run.json"
    announced = path.read_bytes() if path.exists() else None
    runs = new_runs(folder, announced_id(announced), ends)
    return Result(job_return=job_return, started=started, runs=runs, announced=announced)


class AttemptSender:
    """Sends attempts to an `AttemptKeeper`, without waiting for their arrival.

    An attempt is left out if it is too large, and as long as the one before it is on its way, which bounds the memory
    of the node. No error here ends the run.
    """

    def __init__(self, keeper: Any) -> None:
        self.keeper = keeper
        self._last: Any = None

    def __call__(self, attempt: Path) -> None:
        """Send an attempt."""
        import ray  # noqa: PLC0415 - an extra

        try:
            if self._last is not None and not ray.wait([self._last], timeout=0)[0]:
                return
            content = packed_attempt(attempt, leave_out=progress_path(attempt))
            if content is not None:
                self._last = self.keeper.keep.remote(attempt.parent.name, int(attempt.name), content)
        except Exception as error:
            kind = type(error).__name__
            log.warning("the checkpoint of run %s is not sent: %s: %s", attempt.parent.name, kind, error)


def remove_earlier_runs(folder: Path, home: Home, ends: Mapping[str, str]) -> None:
    """Delete from the folder of a node the runs that came home before this sweep.

    Those of this sweep stay: another task on this node may just start from one. All times are those of one file system.
    """
    mark = folder / home.mark.name
    with suppress(FileExistsError):
        mark.touch(exist_ok=False)
    for path in (folder / "runs").glob(f"*/{RECORD}"):
        with suppress(FileNotFoundError):  # another task deletes it
            if path.parent.name in ends and path.stat().st_mtime < mark.stat().st_mtime:
                shutil.rmtree(path.parent, ignore_errors=True)


def new_runs(folder: Path, run_id: str | None, ends: Mapping[str, str]) -> dict[str, NewRun]:
    """Return the run of a job and those that it starts from, as far as they are in `folder` and not at home."""
    runs: dict[str, NewRun] = {}
    while run_id is not None and (path := folder / "runs" / run_id / RECORD).exists():
        record = Record.read(path)
        if ends.get(run_id) == record.finished:
            break
        runs[run_id] = NewRun(packed(path.parent), ends.get(run_id))
        run_id = record.hashes.get("parent")
    return runs


def announced_id(announced: bytes | None) -> str | None:
    """Return the run id in the content of a `run.json`."""
    run_id: str | None = json.loads(announced or b"{}").get("run_id")
    return run_id


def enter_folder(home: Home) -> None:
    """Go to the working folder of the sweep, if this machine has it, and import from where the sweep does."""
    if Path(home.folder).is_dir():
        os.chdir(home.folder)
    sys.path.extend(path for path in home.path if path not in sys.path)


def node_folder(home: Home) -> Path:
    """Return the results folder of this node for a sweep that it does not see."""
    import ray  # noqa: PLC0415 - an extra

    node = ray.get_runtime_context().get_node_id()[:12]
    digest = hashlib.sha256(str(home.results_dir).encode()).hexdigest()[:12]
    folder = Path(home.work_dir).expanduser() / f"{digest}-{node}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def portable_return(job_return: JobReturn) -> JobReturn:
    """Return a `JobReturn` without its configs, its error in the form of `portable`."""
    job_return.cfg = job_return.hydra_cfg = None
    if job_return.status != JobStatus.COMPLETED:
        job_return.return_value = portable(job_return._return_value)
    return job_return


class JobStart:
    """Hydra's callbacks of a job, but for its end: that is called where the sweep was started."""

    def __init__(self, callbacks: Any) -> None:
        self.callbacks = callbacks

    def on_job_start(self, **arguments: Any) -> None:
        """Call the callbacks."""
        self.callbacks.on_job_start(**arguments)

    def on_job_end(self, **_: Any) -> None:
        """Leave the sweep."""
        leave_sweep()
