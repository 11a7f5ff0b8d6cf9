"""Run all benchmarks one after the other, each in a process of its own.

    python -m benchmarks [--data-dir DIR] [--full]

A benchmark that is completed is marked in `.bench/completed`. If the program is stopped and started again, it skips the
marked ones. When all are completed, the marks are removed, so the next start measures everything again. Without
`--full` the sweeps are small, with one run of the baseline.
"""

import argparse
import logging
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.sweeps import WORK

PARTS: dict[str, Sequence[str]] = {
    "step": ("--rounds", "15"),
    "layout": ("--rounds", "8"),
    "init": ("--rounds", "1"),
    "runs": (),
    "end_to_end": ("--rows", "1000", "--inits", "kaiming", "svd_both", "--ranks", "2", "16", "--runs", "1"),
    "growth": ("--runs", "5", "--rows", "500", "2000"),
    "planning": ("--runs", "600", "--rounds", "1"),
    "bookkeeping": ("--runs", "500", "--listed", "1000"),
    "launchers": (),
    "precision": (),
    "scale_simulator": (),
}
FULL: dict[str, Sequence[str]] = {
    "step": ("--rounds", "40"),
    "layout": ("--rounds", "20"),
    "init": ("--rounds", "3"),
    "runs": ("--processes", "100"),
    "end_to_end": ("--seeds", "0", "1", "2"),
    "growth": (),
    "planning": (),
    "bookkeeping": (),
    "launchers": (),
    "precision": (),
    "scale_simulator": (),
}
DATA = ("step", "layout", "end_to_end", "growth")
"""Benchmarks that take `--data-dir`."""
log = logging.getLogger("benchmarks")


def main() -> None:
    """Run every benchmark that is not completed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--full", action="store_true", help="large sizes: hours on two cores")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for name, arguments in (FULL if options.full else PARTS).items():
        data = ["--data-dir", str(options.data_dir)] if options.data_dir and name in DATA else []
        run(name, [*arguments, *data])
    shutil.rmtree(WORK / "completed")


def run(name: str, arguments: Sequence[str]) -> None:
    """Run one benchmark, unless it is completed with these arguments."""
    mark = WORK / "completed" / " ".join([name, *arguments]).replace("/", "|")
    if mark.exists():
        log.info("%s is completed", name)
        return
    log.info("\n== python -m benchmarks.%s %s", name, " ".join(arguments))
    subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *arguments], check=True)
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.touch()


if __name__ == "__main__":
    main()
