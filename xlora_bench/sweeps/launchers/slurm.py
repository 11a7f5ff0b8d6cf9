"""`hydra/launcher=slurm`: an array of workers in Slurm that take the runs of a sweep one after another.

The folder of a launch, `<results_dir>/slurm/<sweep>/<hash of its runs>`, is the Hydra folder of its jobs. It holds
`runs.json` (their overrides), the batch script, the name and the id of the array, the logs, and one file per ended job.
A worker is the program itself with the same config on that list of runs; so nothing is pickled, and the claims of the
runs make all workers one pool. This process only submits the array and watches the files of the jobs: it may end and
come back.
"""

import json
import logging
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus, filter_overrides
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from xlora_bench.runs import claim
from xlora_bench.runs.command_line import CommandLine
from xlora_bench.runs.console import console
from xlora_bench.runs.overrides import as_text
from xlora_bench.runs.run import claim_path
from xlora_bench.sweeps.launchers.launcher import Job, RunLauncher, failed
from xlora_bench.sweeps.launchers.schedule import WorkerLostError
from xlora_bench.sweeps.launchers.slurm_array import Array, check_commands
from xlora_bench.sweeps.launchers.workers import THREADS, check_runs_per_device
from xlora_bench.sweeps.planning import jobs as job_files
from xlora_bench.sweeps.planning.run_list import write_run_list
from xlora_bench.system.io import write_atomically

log = logging.getLogger(__name__)

POLL_SECONDS = 2.0
QUEUE_SECONDS = 10.0
"""Time between two questions to Slurm."""
END_SECONDS = 30
"""Time before a time limit at which a worker asks to be queued again."""


class SlurmLauncher(RunLauncher):
    """Submits an array of `workers` tasks and waits for the runs; each task trains one run after another.

    A task that is preempted, reaches its time limit or loses its node is queued again; the run goes on from its last
    whole epoch. When all tasks have ended and runs are left, a new array is submitted, unless the last one ended none.

    A task trains `runs_per_device` runs at the same time, on its one GPU. `threads` are the CPUs of a run, `gpus` the
    GPUs of a task (null: none), `time` its limit in Slurm's notation, `memory` as
    `8G`; `setup` are shell lines that run before the worker; `options` are further options of sbatch by name.

    Raises:
        ValueError: at setup, if there is no Slurm here; at launch, if Slurm does not answer or refuses the job.
    """

    def __init__(
        self,
        *,
        workers: int = 4,
        threads: int = 1,
        partition: str | None = None,
        account: str | None = None,
        gpus: int | str | None = None,
        time: str | int | None = None,
        memory: str | None = None,
        setup: Sequence[str] = (),
        options: Mapping[str, Any] | None = None,
        runs_per_device: int = 1,
    ) -> None:
        super().__init__()
        for name, value in (("workers", workers), ("threads", threads)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"`hydra.launcher.{name}` (={value}) must be a whole number of at least 1")
        check_runs_per_device(runs_per_device)
        if runs_per_device > 1 and str(gpus).rpartition(":")[2] != "1":
            raise ValueError(
                f"`hydra.launcher.runs_per_device` (={runs_per_device}) needs one GPU per task: set "
                f"`hydra.launcher.gpus` (={gpus}) to 1 or TYPE:1, and workers to the number of GPUs"
            )
        self.runs_per_device = runs_per_device
        self.workers, self.threads, self.lines = workers, threads, list(setup)
        self.options = {
            "partition": partition,
            "account": account,
            "gpus-per-task": gpus,
            "time": time,
            "mem": memory,
            **(options or {}),
        }

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep context and config, and look for Slurm."""
        check_commands()
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)

    def ended_jobs(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Any]]:
        """Submit the jobs, unless the array of an earlier start still runs; yield each as it ends."""
        jobs = self.longest_first(jobs)
        folder = launch_folder(self.sweep.config, jobs)
        array = Array(folder / "array.json")
        if array.tasks():
            say(f"slurm: array {array.id} of an earlier start still trains these runs: waiting for it")
        else:
            job_files.clear_jobs(folder / "jobs")
            self.submit(array, folder, len(jobs))
        missing = dict(enumerate(jobs))
        before = len(missing)
        last_query = time.monotonic()
        while missing:
            for number, ended in read_new(folder / "jobs", missing).items():
                job = missing.pop(number)
                yield job, self.end(job, ended)
            if not missing:
                array.end()
                return
            if time.monotonic() - last_query < QUEUE_SECONDS:
                time.sleep(POLL_SECONDS)
                continue
            last_query = time.monotonic()
            if array.is_active() or read_new(folder / "jobs", missing) or any(map(partial(is_held, folder), missing)):
                continue
            if len(missing) == before:
                error = WorkerLostError(f"Slurm's array {array.id} ended without it; its output: {folder / 'logs'}")
                yield from ((job, error) for job in missing.values())
                return
            before = len(missing)
            log.warning("%s runs are left after Slurm's array %s; submitting another", before, array.id)
            self.submit(array, folder, before)

    def end(self, job: Job, ended: job_files.Job) -> JobReturn:
        """Return the `JobReturn` of a job that a worker ended; its error has the name and the text of the worker's."""
        job_return = JobReturn(status=JobStatus.COMPLETED)
        if ended.status == "failed":
            kind, _, text = str(ended.error).partition(": ")
            job_return = failed(type(kind, (RuntimeError,), {})(text))
        here = replace(ended, number=job[0])
        return self.sweep.end(job, job_return, ended=here)

    def submit(self, array: Array, folder: Path, runs: int) -> None:
        """Write the list of runs and the batch script, and submit it for so many runs."""
        (folder / "logs").mkdir(parents=True, exist_ok=True)
        script = folder / "worker.sh"
        write_atomically(script, self.script(folder, workers=min(self.workers, runs)))
        array.submit(script, name=self.options.get("job-name") or f"xlora-{folder.parent.name}")
        say(f"slurm: array {array.id} for {runs} runs; output in {folder / 'logs'}")

    def script(self, folder: Path, *, workers: int) -> str:
        """Return the batch script of a worker."""
        line = CommandLine.of(self.sweep.config.hydra).without_launcher()
        line = replace(line, config_dir=line.config_dir and str(Path(line.config_dir).absolute()))
        overrides = {
            "hydra.sweeper.runs": folder / "runs.json",
            "hydra.sweep.dir": folder,
            "hydra.launcher.sweep": folder.parent.name,
            "hydra.launcher.threads": self.threads,
            "hydra.launcher.runs_per_device": self.runs_per_device,
            "hydra.launcher.workers": workers,
            "paths.results_dir": folder.parents[2],
        }
        lines = [f"{key}={as_text(str(value))}" for key, value in overrides.items()]
        words = [sys.executable, "-m", "xlora_bench", *line.words(), "hydra/launcher=slurm_worker", *lines]
        options = {
            "array": f"0-{workers - 1}",
            "ntasks": 1,
            "cpus-per-task": self.threads * self.runs_per_device,
            "output": folder / "logs" / "%a.log",
            "open-mode": "append",
            "signal": f"B:USR1@{END_SECONDS}",
            **{key: value for key, value in self.options.items() if value is not None},
        }
        return "\n".join(
            [
                "#!/bin/bash",
                *(f"#SBATCH --{key}={shlex.quote(str(value))}" for key, value in options.items()),
                "#SBATCH --requeue",
                "# the signal comes before the time limit",
                "trap 'scontrol requeue \"${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}\"' USR1",
                f"cd {shlex.quote(str(Path.cwd()))} || exit 1",
                *(f"export {name}={self.threads}" for name in THREADS),
                *self.lines,
                f'{shlex.join(words)} hydra.launcher.index="$SLURM_ARRAY_TASK_ID" &',
                "wait $!",
                "",
            ]
        )


def launch_folder(config: DictConfig, jobs: Sequence[Job]) -> Path:
    """Return the folder of a launch, with the list of its runs; the same runs have the same folder."""
    from xlora_bench.sweeps.reporting.plan import sweep_name  # noqa: PLC0415 - slow to import (pandas)

    results = Path(str(config.paths.results_dir)).expanduser().absolute()
    runs = [list(filter_overrides(overrides)) for _, overrides in jobs]
    listed = write_run_list(runs, results / "slurm" / sweep_name(config)[0])
    folder = listed.with_suffix("")
    folder.mkdir(exist_ok=True)
    listed.replace(folder / "runs.json")
    return folder


def read_new(folder: Path, missing: Mapping[int, Job]) -> dict[int, job_files.Job]:
    """Return the jobs among `missing` that have a file; only those files are read."""
    names = {int(path.stem): path for path in folder.glob("[0-9]*.json")}
    new = sorted(names.keys() & missing.keys())
    return {number: job_files.Job(**json.loads(names[number].read_text(encoding="utf-8"))) for number in new}


def is_held(folder: Path, number: int) -> bool:
    """Return whether a process trains the run of a job, as far as its claim tells."""
    try:
        run_id = json.loads((folder / str(number) / "run.json").read_text(encoding="utf-8"))["run_id"]
    except (OSError, ValueError):
        return False
    return claim.holder_of(claim_path(folder.parents[2] / "runs" / run_id)) is not None


def say(line: str) -> None:
    """Print a line."""
    console().print(line, soft_wrap=True, markup=False, highlight=False)
