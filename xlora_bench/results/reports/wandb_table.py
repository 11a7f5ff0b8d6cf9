"""Log the table of a sweep to Weights & Biases; a failure only gives a warning, because records hold the results."""

import logging
import math
from collections.abc import Iterable, Mapping
from typing import Any

from xlora_bench.results.tables.table import Table
from xlora_bench.system.escape import csv_entry, one_line

log = logging.getLogger(__name__)


def log_table(table: Table, *, name: str, settings: Mapping[str, Any]) -> None:
    """Log `table` as `wandb.Table` with key `table`, in a W&B run of job type `report`; any failure is a warning.

    `settings` are arguments of `wandb.init`: `project`, `entity`, `group`, `mode`, `dir`.
    """
    try:
        import wandb  # noqa: PLC0415 - slow to import

        frame = table.to_frame().astype(object)
        rows: list[Iterable[Any]] = [[_entry(value) for value in row] for row in frame.itertuples(index=False)]
        run = wandb.init(
            **settings,
            name=name,
            id=f"report-{name}",
            job_type="report",
            resume="allow",
            reinit="create_new",
            settings=wandb.Settings(silent=True, console="off"),
        )
        run.log(
            {
                "table": wandb.Table(
                    columns=[_entry(str(name)) for name in frame.columns], data=rows, allow_mixed_types=True
                )
            }
        )
        run.finish()
    except Exception as error:
        log.warning("the table was not logged to W&B: %s: %s", type(error).__name__, error)


def _entry(value: Any) -> Any:
    """Return `value` for a table that may be exported as CSV: text escaped, None for NaN."""
    if isinstance(value, str):
        return csv_entry(one_line(value))
    return None if isinstance(value, float) and math.isnan(value) else value
