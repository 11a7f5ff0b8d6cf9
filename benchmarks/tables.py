"""Write a result as Markdown for readers and as CSV for programs."""

import importlib.metadata
import logging
import os
import platform
from pathlib import Path

import pandas as pd
import torch

from xlora_bench.system.log_levels import set_log_levels

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("torch", "transformers", "peft", "lightning")
log = logging.getLogger("benchmarks")


def show_log() -> None:
    """Show the log of the benchmarks in the terminal, and only warnings of other libraries."""
    set_log_levels()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    log.setLevel(logging.INFO)


def publish(name: str, frame: pd.DataFrame, *, title: str, notes: str = "", folder: Path = RESULTS) -> None:
    """Write `<folder>/<name>.md` and `.csv`: the machine and the versions, the notes, and the table."""
    folder.mkdir(parents=True, exist_ok=True)
    frame.to_csv(folder / f"{name}.csv", index=False, float_format="%.6g", lineterminator="\n")
    parts = [f"# {title}", machine(), *([notes.strip()] if notes else []), markdown(frame)]
    (folder / f"{name}.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    log.info("\n%s\n\n%s", title, frame.to_string(index=False, float_format="%.4g"))


def machine() -> str:
    """Return a line about processor, threads and versions."""
    versions = ", ".join(f"{package} {importlib.metadata.version(package)}" for package in PACKAGES)
    load = f", load {os.getloadavg()[0]:.1f} at the end" if hasattr(os, "getloadavg") else ""
    return (
        f"{processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads{load}; "
        f"Python {platform.python_version()}, {versions}."
    )


def processor() -> str:
    """Return the processor's name and the vector instructions that torch uses on it."""
    names = [line.split(":", 1)[1].strip() for line in cpuinfo() if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()} ({torch.backends.cpu.get_cpu_capability()})"


def cpuinfo() -> list[str]:
    """Return the lines of /proc/cpuinfo; none where there is no such file."""
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def markdown(frame: pd.DataFrame) -> str:
    """Return a Markdown table with numbers to four digits."""
    rows = [[shown(value) for value in row] for row in frame.itertuples(index=False)]
    lines = [list(frame.columns), ["---"] * frame.shape[1], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def shown(value: object) -> str:
    """Return a value as the text of a table cell."""
    if isinstance(value, float):
        return "" if pd.isna(value) else f"{value:.4g}"
    return str(value)
