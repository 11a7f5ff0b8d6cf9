"""Predictions of a run (`predictions.parquet`): one row per epoch, split and example."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

FILE = "predictions.parquet"
COLUMNS = ("epoch", "split", "idx", "label", "prediction")
"""Columns beside the logits `logit_0`, `logit_1`, ...; all hold numbers but `split`."""


def read_predictions(path: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Return the predictions in `path`: all columns, or only `columns`.

    Raises:
        ValueError: if there is no such file, it is damaged, or lacks a wanted column, or that has no numbers.
    """
    if not path.exists():
        raise ValueError(f"its {FILE} is not there; rerun=true trains it again")
    try:
        frame = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"its {FILE} cannot be read ({error}); rerun=true trains it again") from error
    logits = [name for name in frame.columns if name.startswith("logit_")] or ["logit_0"]
    numbers = [name for name in columns or (*COLUMNS, *logits) if name != "split"]
    lacking = [name for name in numbers if name not in frame or not pd.api.types.is_numeric_dtype(frame[name])]
    lacking += [] if "split" in frame else ["split"]
    if lacking or frame.empty:
        what = f"no numbers in {', '.join(lacking)}" if lacking else "no example"
        raise ValueError(f"its {FILE} has {what}; rerun=true trains it again")
    return frame if columns is None else frame[list(columns)]
