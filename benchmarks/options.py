"""The options that most benchmarks share."""

import argparse
from pathlib import Path

import torch

from benchmarks.tables import RESULTS, show_log


def parser(description: str, *, rounds: int) -> argparse.ArgumentParser:
    """Return a parser with the shared options; a benchmark adds its own."""
    options = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data-dir", type=Path, help="GLUE as DIR/<task>/train.parquet; random tokens without it")
    options.add_argument("--results", type=Path, default=RESULTS, help="where the tables go (%(default)s)")
    options.add_argument("--rounds", type=int, default=rounds, help="measurements of each contender (%(default)s)")
    options.add_argument("--threads", type=int, default=2, help="(%(default)s)")
    options.add_argument(
        "--clock",
        choices=["wall", "cpu"],
        default="wall",
        help="cpu: CPU time, for one thread on a machine with other work",
    )
    return options


def started(options: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse the command line, set up threads, seed and log, and return the options."""
    chosen = options.parse_args()
    show_log()
    torch.set_num_threads(chosen.threads)
    torch.manual_seed(0)
    return chosen
