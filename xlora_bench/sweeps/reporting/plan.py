"""Plan of a sweep: its name, folders and runs; and its runs as a data frame at the end."""

import hashlib
import json
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import pandas as pd
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import filter_overrides
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from xlora_bench.results.frame.collect import collect, requested_columns, to_frame
from xlora_bench.results.protocols.paper import Paper
from xlora_bench.results.reports.wandb_table import wandb_node
from xlora_bench.runs.config_hash import COSMETIC
from xlora_bench.runs.hydra_internals import basic_sweeper
from xlora_bench.runs.plain_config import plain_config
from xlora_bench.sweeps.planning.jobs import Job, PlannedRun, read_jobs, varying_keys

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is known when a sweep starts; `runs` is empty until a sweeper other than Hydra's basic one sets it."""

    name: str
    title: str
    results_dir: Path
    jobs: Path
    runs: list[PlannedRun]
    started: float
    process: int
    paper: Paper | None
    config: DictConfig
    loader: ConfigLoader
    notes: list[str] = field(default_factory=list)

    @cached_property
    def shown(self) -> set[str]:
        """The override keys in which the runs differ."""
        return varying_keys([run.overrides for run in self.runs])

    @property
    def is_part(self) -> bool:
        """Whether this process does a part of a sweep that another one started and reports."""
        return str(self.config.hydra.launcher.get("_target_")).endswith(".SlurmWorkerLauncher")

    @property
    def launched(self) -> float:
        """When the part was submitted (time of its batch script): records of sibling workers are younger."""
        return (self.jobs.parent / "worker.sh").stat().st_mtime

    @property
    def logs_to_wandb(self) -> bool:
        """Whether the runs of this sweep are logged to W&B."""
        return bool(self.wandb_node)

    @property
    def report(self) -> Path:
        """The folder of the table and its figures."""
        return self.results_dir / "reports" / self.name

    @property
    def wandb_settings(self) -> dict[str, Any]:
        """Arguments of `wandb.init` for the sweep's report: project, entity and mode of its logger, group and folder.

        The mode is `offline` if W&B did not answer to a run.
        """
        from xlora_bench.training.loggers.wandb_logs import MARKER, label  # noqa: PLC0415 - slow to import

        node = self.wandb_node
        settings = {key: node[key] for key in ("project", "entity") if node.get(key) is not None}
        offline = node.get("mode") != "online" or (self.jobs.parent / MARKER).exists()
        mode = "offline" if offline else "online"
        return {**settings, "mode": mode, "group": label(self.name), "dir": self.results_dir}

    @property
    def wandb_node(self) -> Mapping[str, Any]:
        """The node of the W&B logger in the config; empty if there is none."""
        return wandb_node(OmegaConf.to_container(self.config.logger, resolve=True))


def make_plan(config: DictConfig) -> Plan:
    """Return the plan of the sweep that Hydra is about to start.

    Raises:
        ValueError: if the config's `paper` is not a valid paper.
    """
    loader = GlobalHydra.instance().config_loader()
    name, relevant = sweep_name(config)
    node = OmegaConf.to_container(config.paper, resolve=True) if config.get("paper") else None
    return Plan(
        name=name,
        title=" ".join(relevant) or name,
        results_dir=Path(config.paths.results_dir).expanduser().absolute(),
        jobs=Path(config.hydra.sweep.dir).absolute() / "jobs",
        runs=_runs(config, loader),
        started=time.time(),
        process=os.getpid(),
        paper=Paper.parse(cast("dict[str, Any]", node)) if node else None,
        config=config,
        loader=loader,
    )


def sweep_frame(plan: Plan) -> pd.DataFrame:
    """Return the tidy frame of this sweep's runs, in the order of the jobs, one row per run (and per tuning role).

    A run without a record has the status `failed` (its job raised an error) or `missing` (its job did not end).
    """
    jobs = read_jobs(plan.jobs)
    recorded = collect(plan.results_dir, [job.run_id for job in jobs.values() if job.run_id is not None])
    rows = {str(row["run_id"]): cast("dict[str, Any]", row) for row in recorded.to_dict("records")}
    runs = dict(enumerate(plan.runs)) or {n: PlannedRun(overrides=tuple(job.overrides)) for n, job in jobs.items()}
    frame_rows, notes = {}, [*plan.notes]
    for number, run in runs.items():
        job = jobs.get(number)
        row = rows.get(str(job.run_id)) if job is not None else None
        for kind in run.tuning or (None,):
            label = {} if kind is None else {"tuning": kind}
            if job is None or row is None:
                frame_rows[f"{number} {kind}"] = {**_without_record(plan, job, list(run.overrides)), **label}
            else:  # `choices` of this sweep: the record may have others
                frame_rows[json.dumps([job.run_id, job.choices, kind])] = {**row, **job.choices, **label}
        if job is not None and row is not None and job.status == "failed" and row["status"] != "failed":
            notes.append(f"Failed: {job.run_id}: {job.error}; the table shows its earlier record")
    frame = to_frame(list(frame_rows.values()))
    frame.attrs.update(unreadable=recorded.attrs["unreadable"], notes=notes)
    return frame


def sweep_name(config: DictConfig) -> tuple[str, list[str]]:
    """Return the sweep's name, which is the config name and a hash of the non-cosmetic overrides, and these."""
    overrides = list(filter_overrides(OmegaConf.to_container(config.hydra.overrides.task)))  # type: ignore[arg-type]
    relevant = [override for override in overrides if not _is_cosmetic(override.partition("=")[0])]
    return _name(config, relevant), relevant


def _name(config: DictConfig, relevant: list[str]) -> str:
    if sweep := config.hydra.launcher.get("sweep"):  # this process does a part of it
        return str(sweep)
    if run_list := config.hydra.sweeper.get("runs"):
        return f"retry-{Path(run_list).stem}"
    config_name = str(config.hydra.job.config_name).rpartition("/")[2]
    stem = "sweep" if config_name == "config" else config_name
    digest = hashlib.sha256("\n".join(sorted(relevant)).encode()).hexdigest()[:8]
    return f"{stem}-{digest}" if relevant else stem


def _is_cosmetic(key: str) -> bool:
    """Whether two sweeps that differ only in `key` have the same runs."""
    group = key.partition(".")[0]
    return group not in ("grid", "tuning", "budget") and (key in COSMETIC or group in COSMETIC)


def _runs(config: DictConfig, loader: ConfigLoader) -> list[PlannedRun]:
    """Return the runs of Hydra's basic sweeper; empty for other sweepers, which report their runs themselves."""
    sweeper = config.hydra.sweeper
    if not str(sweeper.get("_target_")).endswith(".BasicSweeper"):
        return []
    arguments = [f"{key}={value}" for key, value in (sweeper.params or {}).items()] + list(config.hydra.overrides.task)
    parser = OverridesParser.create(config_loader=loader)
    try:
        (runs,) = basic_sweeper().split_arguments(parser.parse_overrides(arguments), None)
    except HydraException as error:  # the sweeper will raise it itself
        log.debug("the runs of the sweep are not known: %s", error)
        return []
    return [PlannedRun(overrides=tuple(filter_overrides(run))) for run in runs]


def _without_record(plan: Plan, job: Job | None, overrides: list[str]) -> dict[str, Any]:
    """Return the row of a run without a record: requested columns, status and reason."""
    given = job.overrides if job else overrides
    status, reason = ("failed", f"{' '.join(given)}: {job.error}") if job else ("missing", "its job did not end")
    config = plan.loader.load_sweep_config(plan.config, given)
    choices = config.hydra.runtime.choices
    OmegaConf.set_struct(config, False)
    del config["hydra"]
    request = requested_columns(plain_config(config), choices)
    return {**request, "run_id": job.run_id if job else None, "status": status, "reason": reason}
