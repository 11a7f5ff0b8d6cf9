"""Tuning trials in a frame, marked by the column `tuning`."""

import pandas as pd

BY = ("adapter", "init_scheme", "task")
"""Default of `tuning.by`: the keys whose combinations are tuned separately."""


def without_trials(frame: pd.DataFrame) -> pd.DataFrame:
    """Return `frame` without its tuning trials."""
    if "tuning" not in frame:
        return frame
    kept = frame[frame["tuning"] != "trial"]
    kept.attrs = frame.attrs
    return kept
