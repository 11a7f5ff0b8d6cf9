"""The folder of the config groups (`conf/`)."""

from pathlib import Path

CONFIGS = next(
    folder for folder in (Path(__file__).parents[1] / "conf", Path(__file__).parents[2] / "conf") if folder.is_dir()
)
"""The config folder: inside the installed package, or beside it in a checkout."""
