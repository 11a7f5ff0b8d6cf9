"""`xlora-bench compare RESULTS_DIR [--reference NAME]`: every method against a reference, paired by seed."""

import argparse
from collections.abc import Mapping, Sequence

import pandas as pd
from rich.table import Table
from rich.text import Text

from xlora_bench.cli.parser import Parser
from xlora_bench.cli.recorded_runs import add_options, pairs, recorded_runs
from xlora_bench.results.comparison.build import Comparison, column_label, compare
from xlora_bench.results.comparison.columns import Column
from xlora_bench.results.comparison.text import HEAD, line_texts
from xlora_bench.results.frame.method_names import method_name
from xlora_bench.results.frame.pivot_axes import PivotAxes, keys, ordered
from xlora_bench.results.frame.trials import without_trials
from xlora_bench.results.protocols.load_paper import load_paper
from xlora_bench.results.protocols.selection import under
from xlora_bench.results.tables.build_table import axes_of
from xlora_bench.runs.console import console

ABOUT = """\
Compare every method of a results folder with a reference. Runs are paired by seed; the p values are those of the exact
sign-flip test, p max-T adjusted for all methods of a table. `xlora-bench table` writes the same, with more columns and
what they mean, to comparison.md; this command writes nothing."""
SHOWN = ("method", "completed", "failed", "mean [95 %]", "difference [95 %]", "p", "p max-T", "verdict")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the comparison of a results folder; return the exit code."""
    parser = Parser(prog="xlora-bench compare", description=ABOUT)
    add_options(parser)
    parser.add_argument(
        "--reference",
        nargs="+",
        metavar="NAME",
        help="the method to compare with: its name in the table, or KEY=VALUE ... (default: lora)",
    )
    options = parser.parse_args(arguments)
    try:
        say(comparison_of(options))
    except ValueError as error:
        console(error=True).print(f"error: {error}", soft_wrap=True, markup=False, highlight=False)
        return 1
    return 0


def comparison_of(options: argparse.Namespace) -> Comparison:
    """Return the comparison that the options ask for.

    Raises:
        ValueError: if there are fewer than two methods, or the reference is not one of them.
    """
    paper = load_paper(options.paper) if options.paper is not None else None
    frame = recorded_runs(options.results_dir, options.filter)
    if frame.empty:
        raise ValueError(
            f"there is no recorded run to compare in `{options.results_dir}`; run some, or widen the filter"
        )
    frame = under(frame, options.selection or (paper.protocol.selection if paper else None) or "best")
    axes = axes_of(without_trials(frame), paper)
    labels = paper.row_labels if paper else {}
    reference = reference_of(options.reference, frame, axes, labels) if options.reference else None
    comparison = compare(frame, axes=axes, row_labels=labels, reference=reference, results_dir=options.results_dir)
    if comparison is None:
        raise ValueError(f"all runs in `{options.results_dir}` are of one method; a comparison needs two or more")
    return comparison


def reference_of(
    words: Sequence[str], frame: pd.DataFrame, axes: PivotAxes, labels: Mapping[str, str]
) -> dict[str, str]:
    """Return the values of the row axes that `--reference` names, by the name of a method or as KEY=VALUE.

    Raises:
        ValueError: if no method, or several, have the name.
    """
    if any("=" in word for word in words):
        return pairs(words, option="--reference")
    wanted, methods = " ".join(words), ordered(keys(without_trials(frame), axes.rows))
    names = {key: method_name(key, labels) for key in methods}
    exact = [key for key, name in names.items() if name == wanted]
    fitting = exact or [key for key, name in names.items() if wanted in name.split(" · ")]
    if len(fitting) != 1:
        raise ValueError(
            f"`--reference {wanted}` must name one method of the table, it fits {len(fitting)}; the methods are "
            f"{', '.join(names.values())}"
        )
    return dict(zip(axes.rows, map(str, fitting[0]), strict=True))


def say(comparison: Comparison) -> None:
    """Print a table per column of the results table, then what was found over tasks."""
    terminal = console()
    for column in comparison.columns:
        terminal.print(table_of(column, comparison))
        for line in [column.summary, *column.notes]:
            terminal.print(line, soft_wrap=True, markup=False, highlight=False)
    for across in comparison.across:
        for line in across.sentences:
            terminal.print(line, soft_wrap=True, markup=False, highlight=False)
    for note in comparison.notes:
        terminal.print(note, soft_wrap=True, markup=False, highlight=False)


def table_of(column: Column, comparison: Comparison) -> Table:
    """Return the comparison of one column as a table; a method that differs from all others is bold."""
    label = column_label(comparison.axes.columns, column.key) or "All runs"
    table = Table(title=f"{label}: against {comparison.labels[comparison.reference]}", title_justify="left")
    for name in SHOWN:
        table.add_column(name, justify="left" if name in ("method", "verdict") else "right")
    for line in column.lines:
        texts = dict(zip(HEAD, [comparison.labels[line.method], *line_texts(line)], strict=True))
        style = "bold" if line.method == column.best else ""
        table.add_row(*(Text(texts[name], style=style) for name in SHOWN))
    return table
