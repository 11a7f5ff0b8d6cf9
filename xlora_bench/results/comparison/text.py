"""Text of the comparison: Markdown for the report, a frame for the CSV file."""

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from xlora_bench.results.comparison.across import Across
from xlora_bench.results.comparison.build import Comparison
from xlora_bench.results.comparison.columns import Column, Line
from xlora_bench.results.frame.method_names import column_label
from xlora_bench.results.statistics.intervals import Interval
from xlora_bench.results.statistics.permutation_test import ALPHA, pairs_needed, smallest_p
from xlora_bench.results.statistics.power import failure_interval
from xlora_bench.system.escape import markdown

HEAD = (
    "method",
    "completed",
    "failed",
    "mean [95 %]",
    "difference [95 %]",
    "p",
    "p Holm",
    "p max-T",
    "seeds and examples [95 %]",
    "McNemar p",
    "verdict",
)
PREFACE = """\
Every method is compared with **{reference}**; runs are paired by seed. A failed or collapsed run is counted, never
averaged; a pair exists only where both runs are completed.

- mean, difference: mean over completed runs, mean over pairs of method minus {reference}; t-intervals over seeds.
- p: exact sign-flip test over seeds. n pairs reach at best 2 / 2^n: five seeds cannot reach p < {alpha:g} ({five:g}),
  {needed} are needed. p Holm, p max-T: adjusted for all methods of a table. With more methods Holm needs more seeds,
  max-T (Westfall and Young) does not.
- verdict: significant if p max-T is at most {alpha:g}. "would need": the number of seeds that finds a difference
  of this size and spread with probability 80 %; it is an order of magnitude.
- seeds and examples: interval of the difference if other seeds and other examples could be drawn; the other columns are
  for these examples. McNemar: test of the trained runs, twice the median p over seeds.
- Bold: significantly better than every other method of its table."""
IQM = """\
- IQM: interquartile mean, the mean of the middle half of all runs over tasks and seeds; its interval (bootstrap of the
  runs within each task) is for these tasks and other seeds. If tasks differ in difficulty, it is mainly the mean of the
  tasks of medium difficulty: prefer the IQM of the difference, which is paired by seed."""


def to_markdown(comparison: Comparison, figures: Sequence[str | None], *, ranked: str | None) -> str:
    """Return the comparison as Markdown, with its figures.

    `ranked` is the file name of the ranked differences, `figures` are those of the diagrams, in the order of `across`.
    """
    reference = markdown(comparison.labels[comparison.reference])
    preface = PREFACE.format(reference=reference, alpha=ALPHA, five=smallest_p(5), needed=pairs_needed())
    lines = ["# Comparison", "", preface]
    lines += ["", f"![Ranked differences]({ranked})"] if ranked is not None else []
    for column in comparison.columns:
        lines += ["", f"## {markdown(column_label(comparison.axes.columns, column.key)) or 'All runs'}", ""]
        lines += _column(column, comparison)
    for across, figure in zip(comparison.across, figures, strict=True):
        names = [name for name in comparison.axes.columns if name != "task"]
        setting = markdown(column_label(names, across.setting))
        lines += ["", f"## Over tasks{f': {setting}' if setting else ''}", "", *_across(across, figure)]
    if comparison.notes:
        lines += ["", "## Not compared", "", *(f"- {markdown(note)}" for note in comparison.notes)]
    return "\n".join([*lines, ""])


def conclusions(comparison: Comparison) -> list[str]:
    """Return one sentence per column: whether a method is significantly better than all others, or why not."""
    names = comparison.axes.columns
    return [": ".join(filter(None, (column_label(names, each.key), each.summary))) for each in comparison.columns]


def to_frame(comparison: Comparison) -> pd.DataFrame:
    """Return one row per column and method, with all numbers at full precision."""
    rows = []
    for column in comparison.columns:
        setting = dict(zip(comparison.axes.columns, column.key, strict=True))
        for line in column.lines:
            method = dict(zip(comparison.axes.rows, line.method, strict=True))
            rows.append({**setting, **method, **_values(line), "best": line.method == column.best})
    return pd.DataFrame(rows)


def _column(column: Column, comparison: Comparison) -> Iterator[str]:
    yield _row(HEAD)
    yield "|---|" + "---:|" * (len(HEAD) - 2) + "---|"
    for line in column.lines:
        name = markdown(comparison.labels[line.method])
        yield _row([f"**{name}**" if line.method == column.best else name, *map(markdown, line_texts(line))])
    yield ""
    yield markdown(column.summary)
    yield from _power(column)
    if column.notes:
        yield ""
        yield from (f"- {markdown(note)}" for note in column.notes)


def line_texts(line: Line) -> list[str]:
    """Return the texts of one method in the order of `HEAD`, its name aside."""
    pairwise = line.pairwise
    mean = (_with(line.interval) if line.interval else f"{line.mean:.4f}") if line.n else "-"
    texts = [str(line.n), _failed(line), mean]
    if pairwise is None:
        return [*texts, "", "", "", "", "", "", line.verdict]
    by_example = pairwise.by_example
    crossed = by_example.seeds_and_examples if by_example else None
    return [
        *texts,
        _with(pairwise.interval, sign=True) if pairwise.interval else f"{pairwise.difference:+.4f}",
        *(_p(value) for value in (pairwise.p, pairwise.p_holm, pairwise.p_max_t)),
        _bounds(crossed, sign=True) if crossed else "",
        _p(pairwise.mcnemar),
        line.verdict,
    ]


def _power(column: Column) -> Iterator[str]:
    """Yield a sentence on the difference that would be found with probability 80 %, if enough pairs exist."""
    detectable = [line.pairwise.detectable for line in column.lines if line.pairwise and line.pairwise.detectable]
    seeds = {line.pairwise.pairs.n for line in column.lines if line.pairwise}
    if not detectable or min(seeds) < pairs_needed():
        return
    low, high = f"{min(detectable):.4f}", f"{max(detectable):.4f}"
    span = low if low == high else f"{low} to {high}, depending on the method,"
    pairs = " to ".join(map(str, sorted({min(seeds), max(seeds)})))
    weaker = (
        "" if min(seeds) > pairs_needed() + 1 else " by the t-test, somewhat less by the exact test with so few seeds"
    )
    yield f"With {pairs} pairs a true difference of {span} would be found with probability 80 %{weaker}."


def _failed(line: Line) -> str:
    runs = line.n + line.failed
    missing = f", {line.missing} missing" if line.missing else ""
    if not line.failed:
        return f"0{missing}"
    low, high = failure_interval(line.failed, runs)
    return f"{line.failed} of {runs} ({low:.0%} to {high:.0%}){missing}"


def _across(across: Across, figure: str | None) -> Iterator[str]:
    yield _row(["method", "mean rank", "IQM [95 %]", "IQM of the difference [95 %]"])
    yield "|---|---:|---:|---:|"
    for name, rank in across.ranks.items():
        score, difference = across.iqm.get(str(name)), across.iqm_difference.get(str(name))
        texts = [_with(score) if score else "", _with(difference, sign=True) if difference else ""]
        yield _row([markdown(str(name)), f"{rank:.2f}", *texts])
    yield ""
    yield from (f"- {markdown(sentence)}" for sentence in across.sentences)
    yield IQM
    if figure is not None:
        yield ""
        yield f"![Critical-difference diagram]({figure})"


def _values(line: Line) -> dict[str, Any]:
    pairwise = line.pairwise
    by_example = pairwise.by_example if pairwise else None
    return {
        "n": line.n,
        "failed": line.failed,
        "missing": line.missing,
        "mean": line.mean,
        **_ends("mean", line.interval),
        "pairs": pairwise.pairs.n if pairwise else 0,
        "difference": pairwise.difference if pairwise else None,
        **_ends("difference", pairwise.interval if pairwise else None),
        "p_sign_flip": pairwise.p if pairwise else None,
        "p_holm": pairwise.p_holm if pairwise else None,
        "p_max_t": pairwise.p_max_t if pairwise else None,
        "detectable": pairwise.detectable if pairwise else None,
        "seeds_needed": pairwise.seeds_needed if pairwise else None,
        "p_mcnemar": pairwise.mcnemar if pairwise else None,
        **_ends("these_runs", by_example.these_runs if by_example else None),
        **_ends("seeds_and_examples", by_example.seeds_and_examples if by_example else None),
        "p_seeds_and_examples": by_example.p if by_example else None,
        "verdict": line.verdict,
    }


def _ends(name: str, interval: Interval | None) -> dict[str, float | None]:
    return {f"{name}_low": interval.low if interval else None, f"{name}_high": interval.high if interval else None}


def _with(interval: Interval, *, sign: bool = False) -> str:
    estimate = f"{interval.estimate:+.4f}" if sign else f"{interval.estimate:.4f}"
    return f"{estimate} {_bounds(interval, sign=sign)}"


def _bounds(interval: Interval, *, sign: bool = False) -> str:
    low, high = (f"{end:+.4f}" if sign else f"{end:.4f}" for end in (interval.low, interval.high))
    return f"[{low}, {high}]"


def _p(value: float | None) -> str:
    if value is None:
        return ""
    return "< 0.0001" if value < 1e-4 else f"{value:.4f}"


def _row(texts: Sequence[str]) -> str:
    return "| " + " | ".join(texts) + " |"
