"""The main job: train one run, or sweep with `-m`."""

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
    folder = Path(HydraConfig.get().runtime.output_dir).absolute()
    try:
        check_single(config)
        record = trained(config)
    except Exception as error:
        forget_refused(folder, Path(str(config.paths.results_dir)).expanduser().absolute())
        raise PastHydra(error) from error
    if record.status == "collapsed":
        raise SystemExit(COLLAPSED)
    return record.score


def check_single(config: DictConfig) -> None:
    """Raise a ValueError for keys that only a sweep reads."""
    for key, empty in (("grid", []), ("tuning", None), ("paper", None)):
        if config.get(key, empty) not in (empty, None):
            raise ValueError(f"`{key}` is for sweeps, and this command is a single run: add -m, or {key}=null")


def forget_refused(folder: Path, results_dir: Path) -> None:
    """Remove what Hydra wrote for a run that was refused, and the folders up to `results_dir` that are empty then.

    Nothing else is removed: `hydra.run.dir` may be a folder with files of the user.
    """
    if (folder / "run.json").exists():
        return
    for name in ("config.yaml", "hydra.yaml", "overrides.yaml"):
        (folder / ".hydra" / name).unlink(missing_ok=True)
    inside = [parent for parent in folder.parents if parent == results_dir or results_dir in parent.parents]
    for empty in (folder / ".hydra", folder, *inside):
        try:
            empty.rmdir()
        except OSError:  # not empty
            return


def trained(config: DictConfig) -> Record:
    """Return the record of the run of `config`; train it if there is none."""
    from xlora_bench.system.log_levels import set_log_levels  # noqa: PLC0415 - slow to import; typos must answer at once

    keep_freed_memory()
    set_log_levels()
    from xlora_bench.training.train import train  # noqa: PLC0415 - after `set_log_levels`: its imports print, too

    return train(config)
