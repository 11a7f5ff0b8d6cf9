"""The main job: train one run, or sweep with `-m`."""

import sys
import warnings
from importlib import import_module

import hydra
from omegaconf import DictConfig

from xlora_bench.cli.errors import run_clearly
from xlora_bench.runs.config_folder import CONFIGS
from xlora_bench.system.malloc import keep_freed_memory

SUBCOMMANDS = ("archive", "diff", "spectrum", "table", "verify")


@hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="config")
def job(config: DictConfig) -> float | None:
    """Train the run of `config`."""
    from xlora_bench.system.log_levels import set_log_levels  # noqa: PLC0415 - slow to import; --help and typos must answer at once

    keep_freed_memory()
    set_log_levels()
    from xlora_bench.training.train import train  # noqa: PLC0415 - after `set_log_levels`: its imports print, too

    return train(config)


def main() -> None:
    """Run a subcommand, or else the main job; `--dry-run` lists the runs of a sweep and their costs."""
    warnings.filterwarnings("ignore", category=UserWarning, module="hydra")
    if sys.argv[1:2] and sys.argv[1] in SUBCOMMANDS:
        command = import_module(f"xlora_bench.cli.{sys.argv[1]}")
        sys.exit(command.main(sys.argv[2:]))
    sys.argv[1:] = arguments(sys.argv[1:])
    run_clearly(job)


def arguments(arguments: list[str]) -> list[str]:
    """Return the arguments for Hydra: replace `--dry-run` by its sweeper, and quote the elements of `start_from`."""
    from xlora_bench.runs.overrides import quoted  # noqa: PLC0415 - see `job`

    rest = [quoted(argument) for argument in arguments if argument != "--dry-run"]
    if len(rest) == len(arguments):
        return rest
    first = next(
        (location for location, word in enumerate(rest) if "=" in word and not word.startswith("-")), len(rest)
    )
    return ["--multirun", *rest[:first], "hydra/sweeper=dry_run", *rest[first:]]  # Hydra: overrides in one block
