"""The options that all benchmarks have."""

import argparse
from pathlib import Path

import torch

from benchmarks.tables import RESULTS, show_log


def parser(description: str, *, rounds: int) -> argparse.ArgumentParser:
    """Return a parser with the options that all have; a benchmark adds its own."""
    options = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data-dir", type=Path, help="GLUE as DIR/<task>/train.parquet; random tokens without it")
    options.add_argument("--results", type=Path, default=RESULTS, help="where the tables go (%(default)s)")
    options.add_argument("--rounds", type=int, default=rounds, help="how often everybody is measured (%(default)s)")
    options.add_argument("--threads", type=int, default=2, help="(%(default)s)")
    options.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="cpu: for one thread, on a busy day")
    return options


def started(options: argparse.ArgumentParser) -> argparse.Namespace:
    """Return the command line's options, threads, seed and log set by them."""
    chosen = options.parse_args()
    show_log()
    torch.set_num_threads(chosen.threads)
    torch.manual_seed(0)
    return chosen
