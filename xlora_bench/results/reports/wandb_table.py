"""Log the report of a sweep to Weights & Biases; a failure only gives a warning, because records hold the results."""

import logging
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from xlora_bench.results.tables.table import Table
from xlora_bench.system.escape import csv_entry, one_line, shortened

log = logging.getLogger(__name__)

LONGEST = 64
"""Characters of the name of a sweep in the id of a W&B run; W&B itself allows 128."""


def log_report(table: Table, *, name: str, figures: Iterable[Path], settings: Mapping[str, Any]) -> None:
    """Log a table and figures in a W&B run of job type `report`; any failure is a warning.

    `table` gets the key `table`, as a `wandb.Table`; each of the `figures` (PNG files) the key `figures/<stem>`.
    `settings` are arguments of `wandb.init`: `project`, `entity`, `group`, `mode`, `dir`.
    """
    try:
        import wandb  # noqa: PLC0415 - slow to import

        frame = table.to_frame().astype(object)
        rows: list[Iterable[Any]] = [[_entry(value) for value in row] for row in frame.itertuples(index=False)]
        columns = [_entry(str(name)) for name in frame.columns]
        run = wandb.init(
            **settings,
            name=shortened(one_line(name), LONGEST),
            id=f"report-{shortened(re.sub('[^A-Za-z0-9_.=-]+', '_', name), LONGEST)}",
            job_type="report",
            resume="allow",
            reinit="create_new",
            settings=wandb.Settings(silent=True, console="off", symlink=False),
        )
        images = {f"figures/{path.stem}": wandb.Image(str(path)) for path in sorted(figures)}
        run.log({"table": wandb.Table(columns=columns, data=rows, allow_mixed_types=True), **images})
        run.finish()
    except Exception as error:
        log.warning("the report was not logged to W&B: %s: %s", type(error).__name__, error)


def wandb_node(loggers: Any) -> Mapping[str, Any]:
    """Return the node of the W&B logger in the node `logger` of a plain config; empty if there is none."""
    nodes = [loggers, *(loggers.values() if isinstance(loggers, dict) else loggers or [])]
    return next((one for one in nodes if isinstance(one, dict) and str(one.get("_target_")).endswith(".WandbLogs")), {})


def _entry(value: Any) -> Any:
    """Return `value` for a table that may be exported as CSV: text escaped, None for NaN."""
    if isinstance(value, str):
        return csv_entry(one_line(value))
    return None if isinstance(value, float) and math.isnan(value) else value
