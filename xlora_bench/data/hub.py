"""The Hugging Face Hub as a source of rows."""

import pandas as pd

WAY_OUT = (
    "set `paths.data_dir=DIR` to read DIR/<task>/{train,validation}.parquet (or jsonl, csv, tsv) instead, "
    "or HF_HUB_OFFLINE=1 if an earlier run has downloaded it"
)


def read(hub: tuple[str, ...], split: str) -> pd.DataFrame:
    """Return one split of the Hub data set `datasets.load_dataset(*hub)`.

    Raises:
        ValueError: if the Hub cannot be reached or does not hold that data set.
    """
    from datasets import load_dataset  # noqa: PLC0415 - slow to import
    from datasets.exceptions import DatasetsError  # noqa: PLC0415 - slow to import

    name = "/".join(hub)
    require_hub(name)
    try:
        return load_dataset(*hub, split=split).to_pandas()
    except (DatasetsError, OSError, ValueError) as error:
        message = f"data set {name!r} (split {split!r}) could not be loaded from the Hub: {error}; {WAY_OUT}"
        raise ValueError(message) from error


def require_hub(name: str) -> None:
    """Raise a ValueError if the Hub cannot be reached. One request; the Hub's client would retry for 30 s or more."""
    from huggingface_hub import constants, get_session  # noqa: PLC0415 - slow to import

    if constants.HF_HUB_OFFLINE:
        return
    try:
        get_session().head(constants.ENDPOINT, timeout=5)
    except Exception as error:  # each major version of the client raises exceptions of a different library
        raise ValueError(
            f"data set {name!r}: the Hub could not be reached at {constants.ENDPOINT} ({error}); {WAY_OUT}"
        ) from error
