"""Outcome of a sweep: which error it ends with, and what a Ctrl-C says."""

from collections import Counter
from collections.abc import Mapping, Sequence

from xlora_bench.sweeps.planning.jobs import Job, PlannedRun, varying_keys


class RunsFailedError(RuntimeError):
    """Some runs of a sweep failed; the others have their records."""

    exit_code = 2


class AllCollapsedError(RuntimeError):
    """Every run of a sweep collapsed."""

    exit_code = 3


def failure(runs: Sequence[PlannedRun], errors: Mapping[int, BaseException], *, results_dir: str) -> RunsFailedError:
    """Return the error of a sweep in which the jobs with the numbers of `errors` failed: how many, the first, why."""
    number, error = next(iter(sorted(errors.items())))
    shown = varying_keys([run.overrides for run in runs])
    name = " ".join(line for line in runs[number].overrides if line.partition("=")[0] in shown)
    first = str(error).splitlines()[0] if str(error) else repr(error)
    return RunsFailedError(
        f"{len(errors)} of {len(runs)} runs failed, the first ({name}): {type(error).__name__}: {first}; "
        f"`xlora-bench retry {results_dir}` or the same command trains them again"
    )


def check_collapsed(jobs: Sequence[Job]) -> None:
    """Raise `AllCollapsedError` if every job ended, and every one with a collapsed run."""
    if jobs and all(job.status == "collapsed" for job in jobs):
        raise AllCollapsedError(
            f"{_every(len(jobs))} collapsed ({jobs[0].error}), so there is no number to report; the lines under the "
            "table say what to change"
        )


def interruption(jobs: Sequence[Job], *, planned: int) -> str:
    """Return what a Ctrl-C says: how many of the planned runs are done."""
    counts = Counter(job.status for job in jobs)
    others = [f"{counts[status]} {status}" for status in ("collapsed", "failed") if counts[status]]
    done = ", ".join([f"{counts['completed']} of {planned} runs are completed", *others])
    return f"interrupted: {done}; the same command continues, from the last whole epoch of a run under way"


def _every(number: int) -> str:
    return f"all {number} runs" if number > 1 else "the run"
