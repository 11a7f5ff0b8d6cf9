"""Interface of the loggers, CSV files, and any logger of Lightning by its class."""

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from filelock import FileLock
from lightning.pytorch.loggers import CSVLogger, Logger

from xlora_bench.system.options import CheckedOptions, fault, option_faults, signature_of

PACKAGES = {
    "TensorBoardLogger": ("tensorboard", "tensorboardX"),
    "MLFlowLogger": ("mlflow", "mlflow_skinny"),
    "CometLogger": ("comet_ml",),
    "NeptuneLogger": ("neptune",),
    "TrackioLogs": ("trackio",),
}
"""The packages, one of which a logger needs; by the name of its class. `WandbLogs` goes on without its package."""


@dataclass(frozen=True, kw_only=True)
class RunLabels:
    """Labels of a run: run id, `group` (sweep), `config_label` (shared by seeds), name, tags, and what it trains.

    `names` are plain values to group runs by: the choice of each config group, such as `adapter` and `init_scheme`,
    the `rank` (None: the adapter has none) and the `seed`. `options` is the nested config without class names, nulls
    and the keys that change no number. `headline` is the metric that ranks epochs. `results_dir` holds the folders of
    all runs. `sweep_folder` is Hydra's folder of the sweep; None for a single run.
    """

    run_id: str
    group: str
    config_label: str
    name: str
    tags: tuple[str, ...]
    names: Mapping[str, Any]
    options: Mapping[str, Any]
    headline: str | None = None
    results_dir: Path | None = None
    sweep_folder: Path | None = None

    @property
    def config(self) -> dict[str, Any]:
        """The names, and the options with their keys joined by dots."""
        return {**flatten(self.options), **self.names}


class RunLogs(CheckedOptions):
    """Base of the options of a logger."""

    def open(self, folder: Path, labels: RunLabels) -> Logger:
        """Return the logger of one run, which writes its files to `folder`."""
        raise NotImplementedError

    def close(self, logger: Logger, summary: Mapping[str, Any]) -> None:
        """Write the `summary` of the outcome; by default it is in the record alone."""


@dataclass(frozen=True, kw_only=True)
class CSVLogs(RunLogs):
    """CSV logger: `logs/version_<k>/metrics.csv` in the run's folder, with a new `k` for every start."""

    def open(self, folder: Path, labels: RunLabels) -> Logger:
        """Return the logger of one run."""
        return CSVLogger(folder, name="logs")


@dataclass(frozen=True, kw_only=True)
class LightningLogs(RunLogs):
    """The logger class `kind` of Lightning, or one derived from it, with its `options`.

    `save_dir` and `run_name`, if the class has them and the options do not set them, are the folder and the name of the
    run. The `tracking_uri` of MLflow defaults to the environment variable MLFLOW_TRACKING_URI, else to `mlflow.db` in
    the results folder. The flat config is logged as hyperparameters.
    """

    kind: type[Logger]
    options: Mapping[str, Any]

    def open(self, folder: Path, labels: RunLabels) -> Logger:
        """Return the logger of one run."""
        names = signature_of(self.kind).annotations
        given = {key: value for key, value in (("save_dir", str(folder)), ("run_name", labels.name)) if key in names}
        options = dict(self.options)
        if "tracking_uri" in names and not options.get("tracking_uri"):  # MLflow refuses its old default, a folder
            options["tracking_uri"] = os.environ.get("MLFLOW_TRACKING_URI") or _sqlite(labels.results_dir or folder)
        with _alone(str(options.get("tracking_uri") or "")):
            logger = self.kind(**given | options)
            logger.log_hyperparams({**labels.config, "run_id": labels.run_id, "sweep": labels.group})
        return logger


def _alone(tracking_uri: str) -> AbstractContextManager[object]:
    """Hold a lock beside the SQLite file of MLflow: two processes that make its tables at once raise errors."""
    file = tracking_uri.removeprefix("sqlite:///")
    return nullcontext() if file == tracking_uri else FileLock(f"{file}.lock")


def _sqlite(folder: Path) -> str:
    return f"sqlite:///{folder.absolute() / 'mlflow.db'}"


def logger_faults(key: str, kind: type, options: Mapping[str, Any]) -> list[str]:
    """Return the faults of the options of a logger at `key` of the config, or that its package is not installed."""
    signature = signature_of(kind)
    missing = {"save_dir", "run_name"} & signature.required - set(options)  # the run sets them
    faults = option_faults(kind, {**options, **dict.fromkeys(missing, "")}, group=key)
    package = next((PACKAGES[base.__name__] for base in kind.__mro__ if base.__name__ in PACKAGES), ())
    if not faults and package and not any(map(is_installed, package)):
        rule = f"needs the package {package[0]}: pip install {package[0]}, or choose logger=csv"
        faults.append(fault(f"{key}._target_", f"{kind.__module__}.{kind.__name__}", rule))
    return faults


def is_installed(package: str) -> bool:
    """Return whether a package can be imported."""
    return find_spec(package) is not None


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Join nested keys by dots: `{"adapter": {"rank": 8}}` becomes `{"adapter.rank": 8}`."""
    flattened: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            flattened |= flatten(value, f"{prefix}{key}.")
        else:
            flattened[f"{prefix}{key}"] = value
    return flattened
