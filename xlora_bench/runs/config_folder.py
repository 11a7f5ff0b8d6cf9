"""Folders: that of the config groups (`conf/`), and the default cache."""

from pathlib import Path

CACHE_DIR = "~/.cache/xlora_bench"
"""The default of `paths.cache_dir`, where no config names one: for pages, and for a run that is trained again."""
CONFIGS = next(
    folder for folder in (Path(__file__).parents[1] / "conf", Path(__file__).parents[2] / "conf") if folder.is_dir()
)
"""The config folder: inside the installed package, or beside it in a checkout."""
