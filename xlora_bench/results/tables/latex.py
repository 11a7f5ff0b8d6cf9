"""LaTeX of a table: floats that fit a page, each with one tabular of `booktabs`, and the notes after them."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

from xlora_bench.system.escape import latex

NEEDS = r"% Needs \usepackage{booktabs,graphicx}."
MOST_ROWS = 45
"""Rows of a tabular that fit a page with its caption."""
WIDEST = 90
"""Characters of a row that are readable at the width of a page; a wider table becomes several."""
FIT = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"
"""Shrinks what is still too wide."""

Item = TypeVar("Item")


def floats(title: str, tabulars: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a float for each of `tabulars`, given by their lines, with `title` as caption."""
    for number, lines in enumerate(tabulars, start=1):
        part = f" ({number} of {len(tabulars)})" if len(tabulars) > 1 else ""
        yield from (r"\begin{table}[htbp]", r"\centering\footnotesize", rf"\caption{{{latex(title + part)}}}")
        yield from (FIT, *lines, "}", r"\end{table}")


def paragraphs(notes: Sequence[str]) -> Iterator[str]:
    """Yield the notes as paragraphs of small text."""
    yield from (rf"{{\footnotesize\raggedright\noindent {latex(note)}\par}}" for note in notes)


def tabular(shape: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a tabular: lines of its head, then rows of escaped texts."""
    body = [rf"{' & '.join(row)} \\" for row in rows]
    start, end = rf"\begin{{tabular}}{{{shape}}}", r"\end{tabular}"
    return [start, r"\toprule", *head, r"\midrule", *body, r"\bottomrule", end]


def pages(rows: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """Yield the rows in parts of at most `MOST_ROWS`."""
    for start in range(0, len(rows), MOST_ROWS):
        yield rows[start : start + MOST_ROWS]


def fitting(widths: Sequence[int], *, labels: int) -> Iterator[slice]:
    """Yield the columns, given their `widths` in characters, in parts that fit beside labels of `labels` characters."""
    start, used = 0, labels
    for number, width in enumerate(widths):
        if number > start and used + width > WIDEST:
            yield slice(start, number)
            start, used = number, labels
        used += width
    yield slice(start, len(widths))
