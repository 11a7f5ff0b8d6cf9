"""States of all runs of a results folder: those with a folder, and those that a sweep has only planned."""

import json
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from xlora_bench.runs.claim import holder_of
from xlora_bench.runs.command_line import CommandLine, without_keys
from xlora_bench.runs.overrides import Overrides, as_text, from_lines
from xlora_bench.runs.read_records import read_records
from xlora_bench.runs.record import Record
from xlora_bench.runs.run import checkpoint_path, claim_path, last_attempt, progress_path
from xlora_bench.sweeps.planning.jobs import Job, read_jobs
from xlora_bench.sweeps.planning.plan_file import FILE, SweepPlan
from xlora_bench.sweeps.reporting.progress import duration

log = logging.getLogger(__name__)

STATES = ("planned", "running", "interrupted", "completed", "collapsed", "failed")
OUTSIDE = ("paths", "logger", "hydra", "rerun")
"""Keys, and groups of keys, that do not change a run."""
USUAL = ("adapter", "init_scheme", "targets", "model", "task", "adapter.rank", "optimizer.lr", "seed")
"""Keys that are shown if no command line is known, as far as they vary."""


@dataclass(frozen=True, kw_only=True)
class RunState:
    """One run: its state (one of `STATES`), the reason for it, and how it was asked for.

    `run_id` is None until the run has started. `overrides` and `command_line` are None if Hydra's folder is gone, and
    for a parent run that no command line names.
    """

    state: str
    run_id: str | None
    reason: str | None = None
    overrides: tuple[str, ...] | None = None
    command_line: CommandLine | None = None
    record: Record | None = None

    def value(self, key: str) -> str:
        """Return the value of an override key: from the overrides, else from the record; empty if neither has it."""
        own = from_lines(self.overrides or ())
        if key in own or self.record is None:
            return own.get(key, "")
        if key in self.record.choices:
            return str(self.record.choices[key])
        node: Any = self.record.config
        for part in key.split("."):
            node = node.get(part) if isinstance(node, Mapping) else None
        return "" if node is None else as_text(node)


@dataclass(frozen=True, kw_only=True)
class _Requested:
    """A run that a command line asked for; `job` tells how it ended there (None: not yet, or no sweep)."""

    overrides: tuple[str, ...]
    command_line: CommandLine
    run_id: str | None
    job: Job | None

    @property
    def key(self) -> tuple[str, frozenset[str]]:
        """What two requests for the same run have in common, as far as a command line tells."""
        return self.command_line.config_name, frozenset(relevant(self.overrides))


def run_states(results_dir: Path) -> list[RunState]:
    """Return the state of every run of a results folder, in the order in which they were asked for."""
    requested: dict[object, _Requested] = {}
    for request in _requests(results_dir):
        earlier = requested.get(request.key)
        known = request.run_id or (earlier.run_id if earlier else None)
        requested[request.key] = replace(request, run_id=known)
    by_id = {request.run_id: request for request in requested.values() if request.run_id}
    runs = results_dir / "runs"
    tried = [path.name for path in (results_dir / "attempts").glob("*/")]
    attempts = {name: attempt for name in tried if (attempt := last_attempt(runs / name)) is not None}
    recorded = {path.name for path in runs.glob("*/")}  # last: an attempt may become a run just now
    folders = {name: runs / name for name in sorted(recorded | attempts.keys())}
    result = [_not_started(request) for request in requested.values() if request.run_id not in folders]
    order = {request.run_id: -number for number, request in enumerate(reversed(requested.values()))}
    records = read_records(results_dir, recorded)
    for run_id in sorted(folders, key=lambda run_id: order.get(run_id, 1)):
        result.append(_started(folders[run_id], by_id.get(run_id), records.get(run_id), attempts.get(run_id)))
    return result


def shown_keys(runs: Sequence[RunState]) -> list[str]:
    """Return the keys in which the runs differ; all keys of a single run."""
    keys = dict.fromkeys(key for run in runs for key in from_lines(relevant(run.overrides or ())))
    candidates = [*keys, *(key for key in USUAL if key not in keys and (not keys or _unknown(runs)))]
    return [key for key in candidates if len(runs) == 1 or len({run.value(key) for run in runs}) > 1]


def relevant(overrides: Sequence[str]) -> list[str]:
    """Return the overrides that can change a run."""
    return [line for line in overrides if line.partition("=")[0].partition(".")[0] not in OUTSIDE]


def _unknown(runs: Sequence[RunState]) -> bool:
    return any(run.overrides is None for run in runs)


def _requests(results_dir: Path) -> list[_Requested]:
    """Return the runs that sweeps and single command lines asked for, the oldest first.

    The plans of workers in Slurm come before all: they tell the run ids, and the sweep that started them its launcher.
    """
    workers = [request for path in (results_dir / "slurm").glob(f"*/*/{FILE}") for request in _of_sweep(path)]
    plans = _plans(results_dir / "hydra")
    single = (results_dir / "hydra").glob("*/*/run.json")
    paths = sorted([*plans, *single], key=lambda path: (path.stat().st_mtime, path))
    others = [request for path in paths for request in (_of_sweep if path.name == FILE else _of_single_run)(path)]
    return [*(replace(one, command_line=one.command_line.without_launcher()) for one in workers), *others]


def _plans(folder: Path) -> Iterator[Path]:
    """Yield the plans below a folder; the folders of a sweep's jobs, which are called by their numbers, have none."""
    for name, folders, files in os.walk(folder):
        if FILE in files:
            yield Path(name) / FILE
            folders[:] = [each for each in folders if not each.isdecimal()]


def _of_sweep(path: Path) -> Iterator[_Requested]:
    """Yield the planned runs of the sweep with the plan in `path`."""
    plan = SweepPlan.read(path)
    if plan is None:
        return
    jobs = read_jobs(path.parent / "jobs")
    for number, run in enumerate(plan.runs):
        job = jobs.get(number)
        run_id = job.run_id if job else None
        run_id = run_id or _announced(path.parent / str(number) / "run.json").get("run_id")
        yield _Requested(overrides=run.overrides, command_line=plan.command_line, run_id=run_id, job=job)


def _of_single_run(path: Path) -> Iterator[_Requested]:
    """Yield the run that was asked for without a sweep; nothing if an older version wrote the file."""
    content = _announced(path)
    if "config_name" in content:
        command_line = CommandLine.from_json(content)
        overrides = tuple(content["overrides"])
        yield _Requested(overrides=overrides, command_line=command_line, run_id=content["run_id"], job=None)


def _announced(path: Path) -> Mapping[str, Any]:
    """Return the content of a `run.json`; empty if there is none or it is being written."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _not_started(request: _Requested) -> RunState:
    """Return the state of a run without a folder."""
    failed = request.job is not None and request.job.status == "failed"
    return RunState(
        state="failed" if failed else "planned",
        run_id=request.run_id,
        reason=request.job.error if failed and request.job else None,
        overrides=request.overrides,
        command_line=request.command_line,
    )


def _started(
    folder: Path, request: _Requested | None, read: Record | ValueError | None, attempt: Path | None
) -> RunState:
    """Return the state of a run from its folder, its record (an error if it cannot be read), and its last attempt."""
    record, problem = (None, str(read)) if isinstance(read, ValueError) else (read, None)
    state, reason = _state(folder, record, problem, request.job if request else None, attempt)
    return RunState(
        state=state,
        run_id=folder.name,
        reason=reason,
        overrides=request.overrides if request else None,
        command_line=request.command_line if request else None,
        record=record,
    )


def _state(
    folder: Path, record: Record | None, problem: str | None, job: Job | None, attempt: Path | None
) -> tuple[str, str | None]:
    if attempt is not None and (holder := holder_of(claim_path(folder))) is not None:
        return "running", ", ".join(filter(None, [holder, progress_text(attempt)]))
    if record is not None:
        return record.status, record.reason
    if problem is not None:
        return "failed", problem
    if job is not None and job.status == "failed":
        return "failed", job.error
    resumes = attempt is not None and checkpoint_path(attempt).exists()
    return "interrupted", f"goes on from its {'last whole epoch' if resumes else 'start'} when it is asked for again"


def progress_text(attempt: Path) -> str:
    """Return how far an attempt is, in words; empty before its first step."""
    state = _announced(progress_path(attempt))
    try:
        ago, left = max(0, round(time.time() - state["time"])), state["seconds_left"]
        rest = "" if left is None else f", left {duration(left)}"
        return f"epoch {state['epoch'] + 1}, step {state['step']} of {state['steps']}, {ago} s ago{rest}"
    except (KeyError, TypeError, OverflowError):  # an older version, or steps without a limit
        return ""


def overrides_to_repeat(run: RunState) -> list[str]:
    """Return the overrides that train a run again in whatever results folder; a collapsed one only with `rerun`."""
    assert run.overrides is not None
    lines = without_keys(run.overrides, ("paths.results_dir", "rerun"))
    return [*lines, "rerun=true"] if run.state == "collapsed" else lines


def shown_overrides(run: RunState, keys: Sequence[str]) -> Overrides:
    """Return the values of `keys` of a run, those that it has none of left out."""
    return {key: value for key in keys if (value := run.value(key))}
