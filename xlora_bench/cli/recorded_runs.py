"""The recorded runs that a subcommand is about: those of a results folder that fit the options of its command line."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import pandas as pd

from xlora_bench.results.frame.collect import collect
from xlora_bench.results.protocols.protocol import Selection
from xlora_bench.results.protocols.selection import with_selections


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose runs, and the epoch that counts."""
    parser.add_argument("results_dir", type=Path, help="the folder that holds `runs/`")
    parser.add_argument(
        "--filter",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="keep only these runs, such as adapter=lora adapter.rank=8",
    )
    parser.add_argument(
        "--paper", metavar="NAME", help="use the layout and the published numbers of conf/paper/NAME.yaml"
    )
    parser.add_argument("--selection", choices=get_args(Selection), help="scored epoch; cross_split: on halves of dev")


def recorded_runs(results_dir: Path, filters: Sequence[str]) -> pd.DataFrame:
    """Return the tidy frame of the recorded runs that pass all filters, with the scores of every selection.

    Raises:
        ValueError: if it is not a results folder, or a filter is not KEY=VALUE with a key of the runs.
    """
    if not any((results_dir / name).is_dir() for name in ("runs", "cells")):
        raise ValueError(f"`{results_dir}` is not a results folder: it has no folder `runs`")
    frame = collect(results_dir)
    attributes = frame.attrs
    for item in filters:
        frame = frame[_matches(frame, item)]
    frame.attrs = attributes
    return with_selections(frame, results_dir)


def pairs(items: Sequence[str], *, option: str) -> dict[str, str]:
    """Return the `KEY=VALUE` texts of an option as a dict.

    Raises:
        ValueError: if one is not KEY=VALUE.
    """
    for item in items:
        if "=" not in item:
            raise ValueError(f"`{option} {item}` must be KEY=VALUE, such as adapter=lora")
    return {key: value for key, _, value in (item.partition("=") for item in items)}


def _matches(frame: pd.DataFrame, item: str) -> pd.Series:
    """Return the row mask of KEY=VALUE; values are compared as text and as numbers (`2e-5` equals 2e-05)."""
    key, equals, wanted = item.partition("=")
    if not equals or key not in frame:
        names = ", ".join(name for name in frame.columns if "/" not in name)
        raise ValueError(f"`--filter {item}` must be KEY=VALUE with a key of the runs: {names}")
    same = frame[key].astype(str) == wanted
    try:
        return same | (pd.to_numeric(frame[key], errors="coerce") == float(wanted))
    except ValueError:
        return same
