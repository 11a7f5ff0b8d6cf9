"""Folders: that of the config groups (`conf/`), and the default cache."""

from pathlib import Path

CACHE_DIR = "~/.cache/xlora_bench"
"""The default `paths.cache_dir`: that of what is not a run, and of a run that comes from a record."""
CONFIGS = next(
    folder for folder in (Path(__file__).parents[1] / "conf", Path(__file__).parents[2] / "conf") if folder.is_dir()
)
"""The config folder: inside the installed package, or beside it in a checkout."""
