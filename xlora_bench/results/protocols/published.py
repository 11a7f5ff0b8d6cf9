"""Published numbers with spread, source and status, parsed from the compact form in `conf/paper/*.yaml`."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xlora_bench.results.frame.pivot_axes import Key

STATUSES = {
    "pdf": "read in the paper",
    "secondary": "read in another's transcription",
    "logs": "computed from public logs",
    "figure": "read off a figure",
    "memory": "from memory, unverified",
}
"""How a published number was obtained."""
AVERAGE = "average"
"""The value of `task` for a mean over tasks."""

_ABOUT = ("source", "status", "n", "parameters", "refuse", "label")
_PLUS_MINUS = re.compile(r"(-?\d*\.?\d+) ?± ?(\d*\.?\d+)")


@dataclass(frozen=True, kw_only=True)
class Published:
    """One published number (scale divided out): `value` ± `spread` over `n` runs (None: not stated) at `row`, `column`.

    `parameters` is the published count of trained parameters. `refuse` is a reason not to compare anything with it.
    """

    row: Key
    column: Key
    value: float
    spread: float | None
    n: int | None
    source: str
    status: str
    parameters: float | None = None
    refuse: str | None = None

    @property
    def text(self) -> str:
        """Value, spread, n and status as text."""
        spread = "" if self.spread is None else f" ± {digits(self.spread)}"
        runs = "" if self.n is None else f"{self.n}, "
        return f"{digits(self.value)}{spread} ({runs}{'unverified' if self.status == 'memory' else self.status})"


def digits(value: float) -> str:
    """Return a score with three decimals, or four if three would lose digits."""
    return f"{value:.3f}" if abs(round(value, 3) - value) < 1e-9 else f"{value:.4f}"


def parse_published(
    blocks: Sequence[Mapping[str, Any]],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    scale: float,
    shared: Mapping[str, Any],
) -> list[Published]:
    """Return the numbers of `blocks`; `docs/protocols.md` explains the form.

    The rows of a block inherit its other keys, and a block inherits `shared`. One column axis may hold a list, which
    then has one entry of `values` each. A value is a number, a text `87.5±.3`, or null for an empty cell. Numbers are
    divided by `scale`.

    Raises:
        ValueError: if a number lacks its row, column, source or status, is out of range, or has the cell of another.
    """
    numbers = [
        number
        for block in blocks
        for row in _rows(block, shared)
        for number in _numbers(row, rows=rows, columns=columns, scale=scale)
    ]
    positions = [(number.row, number.column) for number in numbers]
    if twice := [position for position in dict.fromkeys(positions) if positions.count(position) > 1]:
        raise ValueError(f"`paper.published` has two numbers for {twice[0]}; every place may come once")
    return numbers


def published_tasks(blocks: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the tasks of the columns of `blocks`, including those without any number."""
    tasks = [row["task"] for block in blocks for row in _rows(block, {})]
    flattened = [task for some in tasks for task in (some if isinstance(some, list) else [some])]
    return list(dict.fromkeys(task for task in flattened if task != AVERAGE))


def _rows(block: Mapping[str, Any], inherited: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    known = {**inherited, **{name: value for name, value in block.items() if name != "rows"}}
    if "rows" not in block:
        yield known
    for row in block.get("rows", ()):
        yield from _rows(row, known)


def _numbers(
    row: Mapping[str, Any], *, rows: Sequence[str], columns: Sequence[str], scale: float
) -> Iterator[Published]:
    _check(row, rows=rows, columns=columns)
    along = next((name for name in columns if isinstance(row[name], list)), None)
    values = row["values"] if along else [row["value"]]
    positions = row[along] if along else [None]
    if len(values) != len(positions):
        raise ValueError(f"{_show(row)} has {len(values)} `values` for {len(positions)} of `{along}`")
    own = any(name in row for name in rows)
    key = tuple(row.get(name) for name in rows) if own else (row["label"], *(None for _ in rows[1:]))
    for position, written in zip(positions, values, strict=True):
        if written is None:
            continue
        value, spread = _value(written, row, scale)
        yield Published(
            row=key,
            column=tuple(position if name == along else row[name] for name in columns),
            value=value,
            spread=spread,
            n=row.get("n"),
            source=row["source"],
            status=row["status"],
            parameters=_count(row.get("parameters"), row),
            refuse=row.get("refuse"),
        )


def _check(row: Mapping[str, Any], *, rows: Sequence[str], columns: Sequence[str]) -> None:
    unknown = [name for name in row if name not in (*rows, *columns, *_ABOUT, "value", "values")]
    lists = [name for name in columns if isinstance(row.get(name), list)]
    missing = [name for name in columns if name not in row]
    if not any(name in row for name in (*rows, "label")):
        missing.append(f"{' or '.join(rows)} (or a `label`)")
    missing += ["values" if lists else "value"] if ("values" if lists else "value") not in row else []
    if unknown or missing or len(lists) > 1:
        problem = f"has unknown keys {unknown}" if unknown else f"lacks {', '.join(missing) or 'a single list'}"
        raise ValueError(f"{_show(row)} {problem}; a number needs its place, its value, `source` and `status`")
    if not row.get("source"):
        raise ValueError(f"{_show(row)} has no `source`; say where it was published")
    if row.get("status") not in STATUSES:
        raise ValueError(f"{_show(row)} has `status` (={row.get('status')!r}); it must be one of {', '.join(STATUSES)}")


def _value(written: Any, row: Mapping[str, Any], scale: float) -> tuple[float, float | None]:
    match = _PLUS_MINUS.fullmatch(written) if isinstance(written, str) else None
    if match is None and (isinstance(written, bool) or not isinstance(written, int | float)):
        raise ValueError(f"{written!r} in {_show(row)} must be a number, or a text such as 87.5±.3")
    value, spread = (float(match[1]), float(match[2])) if match else (float(written), None)
    if not abs(value) <= scale:
        raise ValueError(f"{value:g} in {_show(row)} is above `paper.scale` (={scale:g}); percents need scale: 100")
    return value / scale, None if spread is None else spread / scale


def _count(written: Any, row: Mapping[str, Any]) -> float | None:
    """Parse a count such as `0.3M`, `60k` or `294912`."""
    if written is None or (isinstance(written, int) and not isinstance(written, bool)):
        return written
    match = re.fullmatch(r"(\d*\.?\d+)([kM])", str(written))
    if match is None:
        raise ValueError(f"`parameters` (={written!r}) in {_show(row)} must be a count such as 0.3M, 60k or 294912")
    return round(float(match[1]) * {"k": 1e3, "M": 1e6}[match[2]], 3)


def _show(row: Mapping[str, Any]) -> str:
    settings = {name: value for name, value in row.items() if name not in ("source", "status", "n")}
    return f"the published {settings}"
