"""Which rows of a frame are tuning trials."""

import pandas as pd

BY = ("adapter", "init_scheme", "task")
"""What gets its own tuning, unless `tuning.by` says otherwise."""


def without_trials(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the runs that are reported."""
    if "tuning" not in frame:
        return frame
    kept = frame[frame["tuning"] != "trial"]
    kept.attrs = frame.attrs
    return kept
