"""`python -m xlora_bench`: train one cell, or sweep with `-m`. Errors are one clear line, not a traceback."""

import logging
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import hydra
from omegaconf import DictConfig

from xlora_bench.memory import keep_freed_memory

CONFIGS = next(
    folder for folder in (Path(__file__).parent / "conf", Path(__file__).parents[1] / "conf") if folder.is_dir()
)
"""The config folder: inside the installed package, or beside it in a checkout."""


@hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="config")
def job(config: DictConfig) -> float | None:
    """Train the cell that `config` names."""
    from xlora_bench.quiet import quiet  # noqa: PLC0415 - after Hydra, so that --help and typos answer at once

    keep_freed_memory()
    quiet()
    from xlora_bench.train import train  # noqa: PLC0415 - its imports talk too

    return train(config)


def main() -> None:
    """Run the main job; `--dry-run` lists its cells and what they cost."""
    sys.argv[1:] = arguments(sys.argv[1:])
    run_clearly(job)


def arguments(said: list[str]) -> list[str]:
    """Return a command line for Hydra: `--dry-run` as its sweeper, the elements of `start_from` in quotes."""
    from xlora_bench.sweeps.overrides import quoted  # noqa: PLC0415 - see `job`

    rest = [quoted(argument) for argument in said if argument != "--dry-run"]
    if len(rest) == len(said):
        return rest
    first = next((place for place, word in enumerate(rest) if "=" in word and not word.startswith("-")), len(rest))
    return ["--multirun", *rest[:first], "hydra/sweeper=dry_run", *rest[first:]]  # overrides must stand together


def run_clearly(entry: Callable[[], object]) -> None:
    """Run a Hydra job; on an error print its message alone and exit with 1 (HYDRA_FULL_ERROR=1 shows the traceback)."""
    if os.environ.get("HYDRA_FULL_ERROR"):
        entry()
        return
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises instead of printing its own shortened traceback
    try:
        entry()
    except Exception as error:
        logging.getLogger(__name__).debug("traceback", exc_info=True)
        sys.stderr.write(f"error: {message(error)}\n")
        sys.exit(1)
    finally:
        del os.environ["HYDRA_FULL_ERROR"]


def message(error: BaseException) -> str:
    """Return what a user can act on: the cause of Hydra's instantiation errors, the reason of its override errors."""
    while type(error).__name__ == "InstantiationException" and error.__cause__ is not None:
        error = error.__cause__
    if type(error).__name__ == "ConfigCompositionException" and error.__cause__ is not None:
        reason = str(error.__cause__).splitlines()[0]
        return f"{str(error).splitlines()[0]} {reason}; `--cfg job` shows every key"
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename} cannot be used ({error.strerror}); choose another folder with paths.results_dir=DIR"
    return str(error) or repr(error)


if __name__ == "__main__":
    warnings.filterwarnings("ignore", category=UserWarning, module="hydra")
    main()
