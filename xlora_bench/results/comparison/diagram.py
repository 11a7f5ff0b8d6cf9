"""Critical-difference diagram: methods on an axis of mean ranks; bars join methods without significant difference."""

from pathlib import Path

import numpy as np
import pandas as pd
from scikit_posthocs import critical_difference_diagram

from xlora_bench.results.figures import style
from xlora_bench.results.statistics.permutation_test import ALPHA


def write_diagram(ranks: pd.Series, p_pairs: pd.DataFrame, path: Path, *, tasks: int, distance: float) -> list[Path]:
    """Write the diagram of `ranks` and Nemenyi's p-values as PNG, SVG and PDF at `path` plus suffix; return these."""
    names = {name: style.wrap(str(name), 0.8) for name in ranks.index}
    rows = (len(ranks) + 1) // 2
    lines = max(map(style.lines_of, names.values()))
    test = f"Nemenyi, {1 - ALPHA:.0%}: {distance:.2f} ranks apart"
    legend = style.Legend(
        label=f"mean rank over {tasks} tasks, 1 is best",
        note=f"A bar joins methods that do not differ significantly ({test}).",
    )
    figure, (panel,) = style.panels(
        [""], [0.3 + 0.13 * (rows * lines + 2)], columns=1, left=1.0, right=1.0, below=0.0, legend=legend
    )
    drawn = critical_difference_diagram(
        ranks.rename(names),
        p_pairs.rename(index=names, columns=names),
        alpha=ALPHA,
        ax=panel,
        label_fmt_left="{label} ({rank:.2f})",
        label_fmt_right="({rank:.2f}) {label}",
        label_props={"fontsize": style.SIZE},
        color_palette=dict.fromkeys(names.values(), "#333333"),
        elbow_props={"linewidth": 0.6},
        marker_props={"s": 8},
        crossbar_props={"color": style.COLOURS[1], "linewidth": 1.8},
    )
    for (bar,) in drawn["crossbars"]:
        bar.set_xdata(np.sort(bar.get_xdata()))  # in the order of a set, which differs between processes
    panel.tick_params(labelsize=style.SIZE)
    return style.save(figure, path)
