"""Interquartile mean (IQM) of all runs of a method over tasks and seeds, with a stratified bootstrap interval.

Agarwal et al. 2021. The strata are the tasks: runs are resampled within each task, so the interval is for these tasks
and other seeds. Of n runs of a task, n - 1 are drawn (Rao and Wu 1988), because drawing n would understate the variance
of a stratum by the factor (n - 1) / n.
"""

from collections.abc import Mapping

import numpy as np
from scipy import stats

from xlora_bench.results.statistics.intervals import LEVEL, Interval
from xlora_bench.results.statistics.pairs import Name, finite

LEAST_TASKS, LEAST_RUNS = 3, 5
"""Below these the interval covers too rarely: see the table of coverage in docs/statistics.md."""
RESAMPLES = 2000


def interquartile_mean(values: object) -> float:
    """Return the mean of `values` without their lowest and highest quarter (`scipy.stats.trim_mean`, 0.25).

    Raises:
        ValueError: if there is no value, or one is not finite.
    """
    return float(stats.trim_mean(finite(values), 0.25))


def iqm_interval(
    runs: Mapping[Name, object], *, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Return the IQM of the pooled `runs` (task -> scores, or differences paired by seed) and its percentile interval.

    Each of the `resamples` draws n_t - 1 of the n_t runs of each task with replacement and takes the IQM of all.

    Raises:
        ValueError: if there are fewer than `LEAST_TASKS` tasks, or a task has fewer than `LEAST_RUNS` runs.
    """
    if len(runs) < LEAST_TASKS:
        raise ValueError(f"its interval needs at least {LEAST_TASKS} tasks, there are {len(runs)}")
    strata = [finite(values, of=f"runs of {task}", at_least=LEAST_RUNS) for task, values in runs.items()]
    rng = np.random.default_rng(seed)
    drawn = [values[rng.integers(0, len(values), (resamples, len(values) - 1))] for values in strata]
    centre = stats.trim_mean(np.concatenate(drawn, axis=1), 0.25, axis=1)
    low, high = np.quantile(centre, [(1 - level) / 2, (1 + level) / 2])
    pooled = np.concatenate(strata)
    return Interval(
        estimate=interquartile_mean(pooled),
        low=float(low),
        high=float(high),
        n=len(pooled),
        method="stratified bootstrap",
        level=level,
    )
