"""A sweep as planned, its name, folders and cells; and what became of it, as a frame."""

import hashlib
import json
import logging
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pandas as pd
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import filter_overrides
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from xlora_bench.results.frame.collect import asked_for, collect, to_frame
from xlora_bench.results.protocols.paper import Paper
from xlora_bench.runs.config_hash import COSMETIC
from xlora_bench.runs.hydra_internals import basic_sweeper
from xlora_bench.sweeps.planning.jobs import Job, Planned, read_jobs

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is known when a sweep starts; `cells` is empty if only the sweeper knows what it will run."""

    name: str
    title: str
    results_dir: Path
    jobs: Path
    cells: list[Planned]
    started: float
    process: int
    paper: Paper | None
    config: DictConfig
    loader: ConfigLoader
    notes: list[str] = field(default_factory=list)

    @property
    def logs_to_wandb(self) -> bool:
        """Whether the runs of this sweep are logged to W&B."""
        return str(OmegaConf.select(self.config, "hydra.runtime.choices.logger")).startswith("wandb")

    @property
    def report(self) -> Path:
        """The folder of the table and its figures."""
        return self.results_dir / "reports" / self.name

    @property
    def wandb_settings(self) -> dict[str, Any]:
        """Where the logger of this sweep sends its runs, as arguments of `wandb.init`."""
        logger = self.config.logger
        told = {key: logger.get(key) for key in ("project", "entity", "mode") if logger.get(key) is not None}
        return {**told, "group": self.name, "dir": self.report}


def make_plan(config: DictConfig) -> Plan:
    """Return the plan of the sweep that Hydra is about to start.

    Raises:
        ValueError: if the config's `paper` is not one.
    """
    loader = GlobalHydra.instance().config_loader()
    overrides = list(filter_overrides(OmegaConf.to_container(config.hydra.overrides.task)))  # type: ignore[arg-type]
    said = [override for override in overrides if not _is_cosmetic(override.partition("=")[0])]
    name = _name(config, said)
    node = OmegaConf.to_container(config.paper, resolve=True) if config.get("paper") else None
    return Plan(
        name=name,
        title=" ".join(said) or name,
        results_dir=Path(config.paths.results_dir).expanduser().absolute(),
        jobs=Path(config.hydra.sweep.dir).absolute() / "jobs",
        cells=_cells(config, loader),
        started=time.time(),
        process=os.getpid(),
        paper=Paper.parse(cast("dict[str, Any]", node)) if node else None,
        config=config,
        loader=loader,
    )


def sweep_frame(plan: Plan) -> pd.DataFrame:
    """Return the tidy frame of exactly this sweep's cells, in the order of its jobs.

    A cell without a record is there with the status `failed` (its job raised) or `missing` (its job never
    ended).
    """
    jobs = read_jobs(plan.jobs)
    recorded = collect(plan.results_dir, [job.cell for job in jobs.values() if job.cell is not None])
    rows = {str(row["cell"]): cast("dict[str, Any]", row) for row in recorded.to_dict("records")}
    cells = dict(enumerate(plan.cells)) or {n: Planned(overrides=tuple(job.overrides)) for n, job in jobs.items()}
    found, notes = {}, [*plan.notes]
    for number, cell in cells.items():
        job = jobs.get(number)
        row = rows.get(str(job.cell)) if job is not None else None
        for kind in cell.tuning or (None,):
            label = {} if kind is None else {"tuning": kind}
            if job is None or row is None:
                found[f"{number} {kind}"] = {**_without_record(plan, job, list(cell.overrides)), **label}
            else:  # the cell may have been trained under another name
                found[json.dumps([job.cell, job.choices, kind])] = {**row, **job.choices, **label}
        if job is not None and row is not None and job.status == "failed" and row["status"] != "failed":
            notes.append(f"Failed: {job.cell}: {job.error}; the table shows its earlier record")
    frame = to_frame(list(found.values()))
    frame.attrs.update(unreadable=recorded.attrs["unreadable"], notes=notes)
    return frame


def _name(config: DictConfig, said: list[str]) -> str:
    """Return the sweep's name: its config's and, if the command line changes it, a hash of what it says."""
    config_name = str(config.hydra.job.config_name).rpartition("/")[2]
    stem = "sweep" if config_name == "config" else config_name
    digest = hashlib.sha256("\n".join(sorted(said)).encode()).hexdigest()[:8]
    return f"{stem}-{digest}" if said else stem


def _is_cosmetic(key: str) -> bool:
    """Whether two sweeps that differ in `key` have the same cells."""
    group = key.partition(".")[0]
    return group not in ("grid", "tuning", "budget") and (key in COSMETIC or group in COSMETIC)


def _cells(config: DictConfig, loader: ConfigLoader) -> list[Planned]:
    """Return the cells of Hydra's own sweeper; empty if the sweeper tells them itself or chooses as it goes."""
    sweeper = config.hydra.sweeper
    if not str(sweeper.get("_target_")).endswith(".BasicSweeper"):
        return []
    arguments = [f"{key}={value}" for key, value in (sweeper.params or {}).items()] + list(config.hydra.overrides.task)
    parser = OverridesParser.create(config_loader=loader)
    try:
        (cells,) = basic_sweeper().split_arguments(parser.parse_overrides(arguments), None)
    except HydraException as error:  # the sweeper is about to say so itself
        log.debug("the cells of the sweep are not known: %s", error)
        return []
    return [Planned(overrides=tuple(filter_overrides(cell))) for cell in cells]


def _without_record(plan: Plan, job: Job | None, overrides: list[str]) -> dict[str, Any]:
    """Return the row of a cell without a record: what was asked for, and why there is nothing else."""
    said = job.overrides if job else overrides
    status, reason = ("failed", f"{' '.join(said)}: {job.error}") if job else ("missing", "its job did not end")
    config = plan.loader.load_sweep_config(plan.config, said)
    choices = config.hydra.runtime.choices
    OmegaConf.set_struct(config, False)
    del config["hydra"]
    asked = asked_for(cast("dict[str, Any]", OmegaConf.to_container(config, resolve=True)), choices)
    return {**asked, "cell": job.cell if job else None, "status": status, "reason": reason}
