"""Critical-difference diagram: methods on an axis of mean ranks; bars join methods without significant difference."""

from pathlib import Path

import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure
from scikit_posthocs import critical_difference_diagram

from xlora_bench.results.statistics.permutation_test import ALPHA
from xlora_bench.system.escape import figure as figure_text


def write_diagram(ranks: pd.Series, p_pairs: pd.DataFrame, path: Path, *, tasks: int, distance: float) -> list[Path]:
    """Write the diagram of `ranks` and Nemenyi's p-values as PNG and SVG at `path` plus suffix; return both paths."""
    names = {name: figure_text(str(name)) for name in ranks.index}
    ranks, p_pairs = ranks.rename(names), p_pairs.rename(index=names, columns=names)
    figure = Figure(figsize=(8.0, 1.4 + 0.34 * ((len(ranks) + 1) // 2 + 2)), layout="constrained")
    panel = figure.subplots()
    critical_difference_diagram(
        ranks,
        p_pairs,
        alpha=ALPHA,
        ax=panel,
        label_fmt_left="{label} ({rank:.2f})",
        label_fmt_right="({rank:.2f}) {label}",
        label_props={"fontsize": 10},
        color_palette=dict.fromkeys(ranks.index, "#333333"),
        elbow_props={"linewidth": 0.9},
        marker_props={"s": 18},
        crossbar_props={"color": "#D55E00", "linewidth": 2.5},
    )
    panel.set_title(
        f"Mean rank over {tasks} tasks, 1 is best; a bar joins methods that do not differ significantly "
        f"(Nemenyi, {1 - ALPHA:.0%}: {distance:.2f} ranks apart)",
        fontsize=9,
        pad=14,
    )
    with rc_context({"svg.hashsalt": path.name}):  # the same ranks give the same file
        figure.savefig(path.with_suffix(".png"), dpi=200)
        figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})
    return [path.with_suffix(".png"), path.with_suffix(".svg")]
