"""The main job: train one run, or sweep with `-m`."""

import shutil
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from xlora_bench.cli.errors import PastHydra
from xlora_bench.cli.exit_codes import COLLAPSED
from xlora_bench.runs.config_folder import CONFIGS
from xlora_bench.runs.record import Record
from xlora_bench.system.malloc import keep_freed_memory


@hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="config")
def job(config: DictConfig) -> float | None:
    """Train the run of `config`; return the headline metric of its best epoch."""
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        return trained(config).score
    folder = Path(HydraConfig.get().runtime.output_dir)
    try:
        check_single(config)
        record = trained(config)
    except Exception as error:
        forget_refused(folder)
        raise PastHydra(error) from error
    if record.status == "collapsed":
        raise SystemExit(COLLAPSED)
    return record.score


def check_single(config: DictConfig) -> None:
    """Raise a ValueError for keys that only a sweep reads."""
    for key, empty in (("grid", []), ("tuning", None), ("paper", None)):
        if config.get(key, empty) not in (empty, None):
            raise ValueError(f"`{key}` is for sweeps, and this command is a single run: add -m, or {key}=null")


def forget_refused(folder: Path) -> None:
    """Remove Hydra's output `folder` of a run that was refused, and the folders above it that are empty then."""
    if (folder / "run.json").exists() or not (folder / ".hydra").is_dir():
        return
    shutil.rmtree(folder, ignore_errors=True)
    for parent in folder.parents:
        try:
            parent.rmdir()
        except OSError:  # not empty
            return


def trained(config: DictConfig) -> Record:
    """Return the record of the run of `config`; train it if there is none."""
    from xlora_bench.system.log_levels import set_log_levels  # noqa: PLC0415 - slow to import; typos must answer at once

    keep_freed_memory()
    set_log_levels()
    from xlora_bench.training.train import train  # noqa: PLC0415 - after `set_log_levels`: its imports print, too

    return train(config)
