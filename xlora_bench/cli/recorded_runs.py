"""The recorded runs that a subcommand is about: those of a results folder that fit the options of its command line."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import pandas as pd

from xlora_bench.results.frame.collect import collect, of_records
from xlora_bench.results.protocols.load_paper import load_paper
from xlora_bench.results.protocols.protocol import Aggregation, Selection
from xlora_bench.results.protocols.selection import with_selections


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose runs, and the epoch that counts."""
    parser.add_argument("results_dir", type=Path, help="the folder that holds `runs/`, or an archive of records")
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


def add_report_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a table and its comparison."""
    add_options(parser)
    parser.add_argument("--aggregation", choices=get_args(Aggregation), help="over seeds")
    parser.add_argument(
        "--reference",
        nargs="+",
        metavar="KEY=VALUE",
        help="the method that the others are compared with (default adapter=lora)",
    )
    parser.add_argument(
        "--config-dir", type=Path, metavar="DIR", help="a folder of yours, for --paper: DIR/paper/NAME.yaml"
    )


def report_settings(options: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments of `write_report` and `report_page` that the options give.

    Raises:
        ValueError: if the paper is not known, or the reference is not KEY=VALUE.
    """
    return {
        "title": ", ".join(options.filter) or "All runs",
        "paper": load_paper(options.paper, config_dir=options.config_dir) if options.paper is not None else None,
        "selection": options.selection,
        "aggregation": options.aggregation,
        "results_dir": options.results_dir,
        "reference": pairs(options.reference, option="--reference") if options.reference else None,
    }


def recorded_runs(results_dir: Path, filters: Sequence[str]) -> pd.DataFrame:
    """Return the tidy frame of the runs that pass all filters, with the scores of every selection.

    Raises:
        ValueError: if `results_dir` is neither a results folder nor an archive, or a filter is not KEY=VALUE with a key
            of the runs.
    """
    if results_dir.is_file():
        from xlora_bench.results.reproduce.records_archive import read_archive  # noqa: PLC0415 - slow to import

        frame = of_records([run.record for run in read_archive(results_dir).values()])
        frame.attrs["missing"] = []
    elif any((results_dir / name).is_dir() for name in ("runs", "cells")):
        frame = collect(results_dir)
    else:
        raise ValueError(f"`{results_dir}` is not a results folder: it has no folder `runs`")
    attributes = frame.attrs
    for item in filters:
        frame = frame[_matches(frame, item)]
    frame.attrs = attributes
    return with_selections(frame, results_dir)


def home(results: Path) -> Path:
    """Return the folder into which reports are written: the results folder, or that of the archive."""
    return results.parent if results.is_file() else results


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
    """Return the row mask of KEY=VALUE: values are compared as text and as numbers (`2e-5` equals 2e-05).

    `null` matches runs without a value.
    """
    key, equals, wanted = item.partition("=")
    if not equals or key not in frame:
        names = ", ".join(name for name in frame.columns if "/" not in name)
        raise ValueError(f"`--filter {item}` must be KEY=VALUE with a key of the runs: {names}")
    if wanted == "null":
        return frame[key].isna()
    same = frame[key].astype(str) == wanted
    try:
        return same | (pd.to_numeric(frame[key], errors="coerce") == float(wanted))
    except ValueError:
        return same
