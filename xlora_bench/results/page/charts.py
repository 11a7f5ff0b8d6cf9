"""Charts of a page as Vega-Lite specifications: one per kind. The page puts the rows of each panel into its copy."""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np
from altair.utils.schemapi import debug_mode

from xlora_bench.results.comparison.across import Across
from xlora_bench.results.statistics.permutation_test import ALPHA

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8A8A8A")
"""Okabe and Ito's colours for colour-blind readers; grey for black, which is not visible on a dark page."""
SHAPES = ("circle", "square", "diamond", "triangle-up", "cross", "triangle-down")
DASHES = ([1, 0], [5, 3], [1, 3])
ROWS = alt.NamedData("rows")
PICKED = "picked === null || datum.method === picked"
LINE_HEIGHT = 20


def specifications(methods: Sequence[str], *, reference: str, costs: Mapping[str, str]) -> dict[str, Any]:
    """Return a specification per kind: "difference", "rank", "curve", "diagram", "layers", "factor" and "cost NAME".

    `costs` maps names to labels. The page sets the title of the score axis.
    """
    with debug_mode(False):  # each part is validated otherwise, which takes three quarters of the time
        return _specifications(methods, reference, costs)


def _specifications(methods: Sequence[str], reference: str, costs: Mapping[str, str]) -> dict[str, Any]:
    charts = {
        "difference": _difference(methods, reference),
        "rank": _by_rank(methods),
        "curve": _curve(methods),
        "factor": _factor(methods),
        "diagram": _diagram(),
        "layers": _layers(),
        **{f"cost {name}": _cost(methods, name, label) for name, label in costs.items()},
    }
    picked = alt.param(name="picked", value=None)
    fit = alt.AutoSizeParams(type="fit-x", contains="padding")
    return {
        name: chart.add_params(picked).properties(width="container", autosize=fit).to_dict(validate=False)
        for name, chart in charts.items()
    }


def looks(methods: Sequence[str]) -> list[tuple[str, str, list[int]]]:
    """Return colour, shape and dash of each method; no two of the first 126 methods look alike."""
    return [
        (
            COLOURS[n % len(COLOURS)],
            SHAPES[n % len(SHAPES)],
            DASHES[(n // len(COLOURS) + n // (len(COLOURS) * len(SHAPES))) % len(DASHES)],
        )
        for n in range(len(methods))
    ]


def diagram_rows(across: Across) -> list[dict[str, Any]]:
    """Return the rows of a critical-difference diagram: methods at their mean ranks, and bars of equal methods."""
    ranks = across.ranks.sort_values()
    names = [str(name) for name in ranks.index]
    rows: list[dict[str, Any]] = [
        {"method": name, "rank": round(float(rank), 4), "label": f"{name} ({rank:.2f})"}
        for name, rank in zip(names, ranks, strict=True)
    ]
    if across.p_pairs is None:
        return rows
    p_values = across.p_pairs.loc[ranks.index, ranks.index].to_numpy()
    last = -1
    for first in range(len(names)):
        end = max(int(np.flatnonzero(p_values[first] > ALPHA).max(initial=first)), first)
        if end > max(last, first):
            joined = ", ".join(names[first : end + 1])
            rows.append({"from": rows[first]["rank"], "to": rows[end]["rank"], "bar": f"bar {first + 1}", "of": joined})
            last = end
    return rows


def _scales(methods: Sequence[str]) -> dict[str, Any]:
    domain, (colours, shapes, dashes) = list(methods), zip(*looks(methods), strict=True)
    return {
        "color": alt.Color("method:N", scale=alt.Scale(domain=domain, range=list(colours)), legend=None),
        "shape": alt.Shape("method:N", scale=alt.Scale(domain=domain, range=list(shapes)), legend=None),
        "dash": alt.StrokeDash("method:N", scale=alt.Scale(domain=domain, range=list(dashes)), legend=None),
        "opacity": alt.condition(PICKED, alt.value(1.0), alt.value(0.12)),
    }


def _tooltip(*fields: str) -> list[alt.Tooltip]:
    return [alt.Tooltip(field.partition("=")[0], title=field.partition("=")[2] or alt.Undefined) for field in fields]


def _difference(methods: Sequence[str], reference: str) -> alt.LayerChart:
    look = _scales(methods)
    tooltip = _tooltip(
        *("method:N=method", "score:Q=mean", "n:Q=seeds", "difference:Q=difference"),
        *("difference_low:Q=from", "difference_high:Q=to", "p:Q=p (max-T)", "verdict:N=verdict"),
    )
    base = alt.Chart(ROWS).encode(
        y=alt.Y("method:N", sort=None, title=None, axis=alt.Axis(labelLimit=220, grid=True)), opacity=look["opacity"]
    )
    zero = alt.Chart(ROWS).mark_rule(strokeDash=[4, 4], color="#888888", aria=False).encode(x=alt.datum(0))
    ranges = base.mark_rule(strokeWidth=2.5).encode(
        x=alt.X("difference_low:Q", title=f"difference to {reference}"), x2="difference_high:Q", color=look["color"]
    )
    points = base.mark_point(size=75, strokeWidth=2, cursor="pointer").encode(
        x="difference:Q",
        stroke=look["color"],
        fill=alt.condition("datum.significant", look["color"], alt.value("transparent")),
        tooltip=tooltip,
    )
    text = (
        alt.Chart(ROWS)
        .transform_filter("!isValid(datum.difference)")
        .mark_text(align="left", dx=6, color="#808080", fontStyle="italic")
        .encode(y=alt.Y("method:N", sort=None), x=alt.value(0), text="verdict:N")
    )
    return (zero + ranges + points + text).properties(height=alt.Step(LINE_HEIGHT))


def _cost(methods: Sequence[str], name: str, label: str) -> alt.LayerChart:
    look = _scales(methods)
    tooltip = _tooltip(
        *("method:N=method", "rank:Q=rank", "score:Q=mean", "score_low:Q=from", "score_high:Q=to"),
        *("n:Q=seeds", f"{name}:Q={label}", "collapsed:Q=collapsed", "failed:Q=failed"),
    )
    y = alt.Y("score:Q", title="score", scale=alt.Scale(zero=False))
    x = alt.X(f"{name}:Q", title=label, scale=alt.Scale(type="log"), axis=alt.Axis(tickCount=5, format="~s"))
    front = (
        alt.Chart(ROWS)
        .transform_filter(f"indexof(datum.front, '{name}') >= 0")
        .mark_line(interpolate="step-after", strokeWidth=6, opacity=0.25, color="#888888")
        .encode(x=x, y=y)
    )
    base = alt.Chart(ROWS).encode(x=x, color=look["color"], opacity=look["opacity"])
    ranges = base.mark_rule().encode(y=y, y2="score_high:Q").encode(y=alt.Y("score_low:Q", title="score"))
    points = base.mark_point(size=70, strokeWidth=2, cursor="pointer").encode(
        y=y,
        shape=look["shape"],
        fill=alt.condition("datum.collapsed + datum.failed > 0", alt.value("transparent"), look["color"]),
        tooltip=tooltip,
    )
    return (front + ranges + points).properties(height=260)


def _by_rank(methods: Sequence[str]) -> alt.LayerChart:
    look = _scales(methods)
    y = alt.Y("score:Q", title="score", scale=alt.Scale(zero=False))
    base = alt.Chart(ROWS).encode(
        x=alt.X("rank:O", title="rank", axis=alt.Axis(labelAngle=0)), color=look["color"], opacity=look["opacity"]
    )
    lines = base.mark_line().encode(y=y, strokeDash=look["dash"])
    ranges = base.mark_rule().encode(y=alt.Y("score_low:Q", title="score"), y2="score_high:Q")
    points = base.mark_point(size=60, filled=True, cursor="pointer").encode(
        y=y,
        shape=look["shape"],
        tooltip=_tooltip(
            "method:N=method", "rank:O=rank", "score:Q=mean", "score_low:Q=from", "score_high:Q=to", "n:Q=seeds"
        ),
    )
    return (lines + ranges + points).properties(height=260)


def _curve(methods: Sequence[str]) -> alt.LayerChart:
    look = _scales(methods)
    x = alt.X("epoch:Q", title="epoch", axis=alt.Axis(tickMinStep=1, labelExpr="datum.value % 1 ? '' : datum.value"))
    base = alt.Chart(ROWS).encode(x=x, color=look["color"])
    thin = base.mark_line(strokeWidth=1, point=alt.OverlayMarkDef(size=12), cursor="pointer").encode(
        y=alt.Y("value:Q", title=None, scale=alt.Scale(zero=False)),
        detail="run:N",
        opacity=alt.condition(PICKED, alt.value(0.4), alt.value(0.04)),
        tooltip=_tooltip(
            "method:N=method", "seed:N=seed", "rank:N=rank", "epoch:Q=epoch", "value:Q=value", "run:N=run"
        ),
    )
    thick = base.mark_line(strokeWidth=3).encode(y="mean(value):Q", strokeDash=look["dash"], opacity=look["opacity"])
    return (thin + thick).properties(height=260)


def _factor(methods: Sequence[str]) -> alt.Chart:
    look = _scales(methods)
    dash = alt.StrokeDash("factor:N", scale=alt.Scale(domain=["B", "A"], range=[[1, 0], [4, 3]]), legend=None)
    return (
        alt.Chart(ROWS)
        .mark_line(point=alt.OverlayMarkDef(size=12))
        .encode(
            x=alt.X("step:Q", title="optimizer step"),
            y=alt.Y("mean(value):Q", title=None, scale=alt.Scale(type="log")),
            color=look["color"],
            strokeDash=dash,
            opacity=look["opacity"],
            tooltip=_tooltip("method:N=method", "factor:N=factor", "step:Q=step", "mean(value):Q=mean"),
        )
        .properties(height=220)
    )


def _diagram() -> alt.LayerChart:
    x = alt.X("rank:Q", title="mean rank over the tasks; 1 is best", scale=alt.Scale(zero=False, padding=12))
    y = alt.Y("label:N", sort=None, title=None, axis=alt.Axis(labelLimit=260))
    base = alt.Chart(ROWS).transform_filter("isValid(datum.rank)").encode(x=x, y=y)
    points = base.mark_point(filled=True, size=80, color="#0072B2").encode(tooltip=_tooltip("label:N=method"))
    bars = (
        alt.Chart(ROWS)
        .transform_filter("isValid(datum.bar)")
        .mark_rule(strokeWidth=5, color="#D55E00", strokeCap="round")
        .encode(x=alt.X("from:Q"), x2="to:Q", y=alt.Y("bar:N", sort=None), tooltip=_tooltip("of:N=not different"))
    )
    return (points + bars).properties(height=alt.Step(LINE_HEIGHT))


def _layers() -> alt.Chart:
    return (
        alt.Chart(ROWS)
        .mark_rect()
        .encode(
            x=alt.X("method:N", sort=None, title=None, axis=alt.Axis(labelAngle=-35, labelLimit=160)),
            y=alt.Y("module:N", sort=None, title=None, axis=alt.Axis(labelLimit=260)),
            color=alt.Color("rank:Q", title="rank", scale=alt.Scale(scheme="viridis")),
            tooltip=_tooltip("method:N=method", "module:N=module", "rank:Q=mean rank"),
        )
        .properties(height=alt.Step(14))
    )
