"""One cell of a table: measured runs, the published number, and whether the two may be compared."""

import math
from dataclasses import dataclass
from typing import Any

from xlora_bench.results.protocols.aggregation import SPREADS
from xlora_bench.results.protocols.protocol import Aggregation
from xlora_bench.results.protocols.published import Published, digits
from xlora_bench.results.statistics import Interval


@dataclass(frozen=True, kw_only=True)
class TableCell:
    """Centre, spread and interval of `n` completed runs, counts of the other runs, and the published number.

    `refused` has the reasons not to compare the measured with the published number.
    """

    center: float = math.nan
    spread: float = math.nan
    n: int = 0
    collapsed: int = 0
    failed: int = 0
    missing: int = 0
    bold: bool = False
    interval: Interval | None = None
    published: Published | None = None
    refused: tuple[str, ...] = ()

    @property
    def runs(self) -> int:
        """The number of all runs, including those without a score."""
        return self.n + self.collapsed + self.failed + self.missing

    @property
    def difference(self) -> float | None:
        """Measured minus published; None if either is missing or they are not comparable."""
        if self.published is None or self.refused or not self.n:
            return None
        return self.center - self.published.value

    @property
    def inside(self) -> bool | None:
        """Whether the published value lies in the measured interval; None without a difference or an interval."""
        if self.difference is None or self.interval is None or self.published is None:
            return None
        return self.published.value in self.interval

    @property
    def measured(self) -> str:
        """Centre, spread and number of the completed runs as text; empty if there is none."""
        if not self.n:
            return ""
        spread = f" ± {self.spread:.4f}" if self.n > 1 else ""
        return f"{self.center:.4f}{spread} ({self.n})"

    @property
    def remarks(self) -> str:
        """Counts of runs without a score, and the published value in brackets, as text."""
        counts = {"collapsed": self.collapsed, "failed": self.failed, "missing": self.missing}
        texts = [f"{count} {name}" for name, count in counts.items() if count]
        if self.published is not None:
            texts.append(f"[{digits(self.published.value)}]")
        return ", ".join(texts) if texts or self.n else "-"

    def compared(self) -> list[str]:
        """Return the texts of: published, measured, difference, interval, whether inside, why refused."""
        published = "" if self.published is None else self.published.text
        if self.difference is None:
            what = "refused" if self.refused else "-"
            return [published, self.measured or self.remarks, what, "", "", "; ".join(self.refused)]
        interval, inside = "one run has none", ""
        if self.interval is not None:
            level = "" if self.interval.level == 0.95 else f" ({self.interval.level:.3g})"
            interval = f"{self.interval.low:.4f} to {self.interval.high:.4f}{level}"
            inside = "yes" if self.inside else "no"
        return [published, self.measured, f"{self.difference:+.4f}", interval, inside, ""]

    def numbers(self, aggregation: Aggregation) -> dict[str, Any]:
        """Return all values at full precision, by name."""
        interval, published = self.interval, self.published
        return {
            "separable_best": self.bold,
            aggregation: self.center,
            SPREADS[aggregation][0]: self.spread,
            "n": self.n,
            "collapsed": self.collapsed,
            "failed": self.failed,
            "missing": self.missing,
            "interval_low": interval and interval.low,
            "interval_high": interval and interval.high,
            "interval_level": interval and interval.level,
            "published": published and published.value,
            "published_spread": published and published.spread,
            "published_n": published and published.n,
            "published_parameters": published and published.parameters,
            "status": published and published.status,
            "source": published and published.source,
            "difference": self.difference,
            "published_inside": self.inside,
            "refused": "; ".join(self.refused),
        }
