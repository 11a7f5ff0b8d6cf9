"""Progress of a sweep: one terminal line per ended run."""

import statistics
from collections.abc import Collection

from xlora_bench.sweeps.planning.jobs import EndedJobs, Job


def progress_line(job: Job, *, ended: EndedJobs, runs: int, shown: Collection[str], elapsed: float) -> str:
    """Return `run k of n`, varying overrides, outcome, mean over the seeds so far, elapsed and remaining time.

    `ended` are all ended jobs, including `job`; `runs` is the number of planned runs, 0 if not known; `shown` are the
    keys in which they differ.
    """
    position = f"run {len(ended.by_number)} of {runs or '?'}"
    name = " ".join(override for override in job.overrides if not runs or override.partition("=")[0] in shown)
    parts = [position, name, _outcome(job), _running_mean(ended.scores(job)), f"elapsed {duration(elapsed)}"]
    return " | ".join(part for part in [*parts, _time_left(ended, runs, elapsed)] if part)


def duration(seconds: float) -> str:
    """Return a duration in at most two units: `3 days 2 h`, `1 h 05 min`, `3 min 20 s`, `7 s`; long ones in years."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days >= 2 * 365:
        return f"{days / 365:,.0f} years"
    if days:
        return f"{days} day{'s' * (days > 1)}{f' {hours} h' if hours and days < 14 else ''}"
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def span(low: float, high: float) -> str:
    """Return a range of durations with one unit each: `20 to 80 s`, `40 min to 3 h`."""
    first, second = _rounded(low), _rounded(high)
    if first == second:
        return f"about {' '.join(first)}"
    return f"{first[0]} to {' '.join(second)}" if first[1] == second[1] else f"{' '.join(first)} to {' '.join(second)}"


def _rounded(seconds: float) -> tuple[str, str]:
    """Return a duration as a number and its unit."""
    for unit, size, least in (("years", 365 * 86400, 2), ("days", 86400, 2), ("h", 3600, 2), ("min", 60, 2)):
        if seconds >= least * size:
            return f"{seconds / size:,.0f}", unit
    return f"{seconds:.0f}", "s"


def _outcome(job: Job) -> str:
    score = f"score {job.score:.4f}" if job.score is not None else ""
    status = job.status if job.status != "completed" else ""
    reason = f"({job.error})" if job.error else ""
    return " ".join(filter(None, ["already done" if job.reused else "", status, reason, score]))


def _running_mean(scores: Collection[float]) -> str:
    return f"mean {statistics.fmean(scores):.4f} over {len(scores)}" if len(scores) > 1 else ""


def _time_left(jobs: EndedJobs, runs: int, elapsed: float) -> str:
    """Return the remaining time: runs left x (elapsed / runs trained in this sweep); empty before the first one."""
    ended, trained = len(jobs.by_number), len(jobs.trained)
    if not runs or ended >= runs or not trained:
        return ""
    return f"left {duration(elapsed / trained * (runs - ended))}"
