"""`hydra/launcher=ray`: the jobs of a sweep as tasks of a Ray cluster.

Where all nodes see the results folder, each task trains as a local worker does. Where they do not, it trains in a
folder of its node, and the run comes home in the result of the task.
"""

import atexit
import hashlib
import json
import logging
import os
import secrets
import shutil
import socket
import sys
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from xlora_bench.runs.claim import HeldError, RecordedAtHomeError
from xlora_bench.runs.console import console
from xlora_bench.runs.parcel import packed, publish_packed
from xlora_bench.runs.record import finished, record_paths
from xlora_bench.runs.sweep_context import away_from_home, leave_sweep
from xlora_bench.sweeps.launchers.launcher import JobCall, RunLauncher, Sweep, enter, run_one
from xlora_bench.sweeps.launchers.placement import count_cores
from xlora_bench.sweeps.launchers.schedule import Executor, WorkerLostError, error_of
from xlora_bench.sweeps.launchers.sent_errors import portable, received
from xlora_bench.sweeps.launchers.workers import THREADS

log = logging.getLogger(__name__)

ATTEMPTS = 4
CONNECT_SECONDS = 5.0


class RayLauncher(RunLauncher):
    """Runs each job as a Ray task with `cpus` cores, which are its threads, and `gpus` GPUs (null: 1 if there are any).

    `address` is that of a running cluster, `auto` for one on this machine; null: the environment variable RAY_ADDRESS,
    else a new cluster of this machine alone. `shared` tells whether the nodes see `paths.results_dir` (null: each task
    looks). `work_dir` is the folder of a node that does not. A task whose node is lost is tried again.

    Raises:
        ValueError: at launch, if Ray is not installed, the cluster does not answer, or no node has what a run needs.
    """

    def __init__(
        self,
        address: str | None = None,
        cpus: int = 1,
        gpus: float | None = None,
        shared: bool | None = None,
        work_dir: str = "~/.cache/xlora_bench/ray",
    ) -> None:
        super().__init__()
        if not isinstance(cpus, int) or cpus < 1:
            raise ValueError(f"`hydra.launcher.cpus` (={cpus}) must be a whole number of at least 1")
        if gpus is not None and gpus < 0:
            raise ValueError(f"`hydra.launcher.gpus` (={gpus}) must be at least 0, or null for 1 if there are any")
        self.address, self.cpus, self.gpus, self.shared, self.work_dir = address, cpus, gpus, shared, work_dir

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep context and config, and look for Ray."""
        try:
            import ray  # noqa: F401, PLC0415 - an extra
        except ImportError:
            raise ValueError("`hydra/launcher` (=ray) needs Ray: pip install 'xlora-bench[ray]'") from None
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)

    def executor(self, config: DictConfig) -> Executor:
        """Connect to the cluster."""
        resources = connect(self.address)
        gpus = (1.0 if resources.get("GPU") else 0.0) if self.gpus is None else float(self.gpus)
        for key, needed, name in (("cpus", self.cpus, "CPU"), ("gpus", gpus, "GPU")):
            if needed > resources.get(name, 0):
                raise ValueError(
                    f"`hydra.launcher.{key}` (={needed:g}) must be at most the {resources.get(name, 0):g} {name}s "
                    "of the Ray cluster"
                )
        home = Home.of(Path(str(config.paths.results_dir)).expanduser().absolute(), self.shared, self.work_dir)
        tasks = RayTasks(self.sweep, home, cpus=self.cpus, gpus=gpus)
        atexit.register(tasks.close)
        return tasks


def connect(address: str | None) -> Mapping[str, float]:
    """Connect to a cluster, or start one on this machine; return its resources.

    Raises:
        ValueError: if it does not answer.
    """
    import ray  # noqa: PLC0415 - an extra

    address = address or os.environ.get("RAY_ADDRESS")
    if not ray.is_initialized():
        host, _, port = (address or "").removeprefix("ray://").rpartition(":")
        try:
            if host and port.isdecimal():
                socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
            own = {"num_cpus": count_cores(), "include_dashboard": False} if address is None else {}
            ray.init(address=address, logging_level=logging.ERROR, **own)
        except (OSError, RuntimeError) as error:
            raise ValueError(
                f"`hydra.launcher.address` (={address}): no Ray cluster answers there ({str(error).splitlines()[0]}); "
                "start one with `ray start --head`, or leave the address out for one on this machine"
            ) from None
    resources: Mapping[str, float] = ray.cluster_resources()
    where = f"{len([node for node in ray.nodes() if node['Alive']])} nodes"
    line = f"ray: {where}, {resources.get('CPU', 0):g} CPUs, {resources.get('GPU', 0):g} GPUs"
    console().print(line, soft_wrap=True, markup=False, highlight=False)
    return resources


@dataclass(frozen=True, kw_only=True)
class Home:
    """The results folder of the sweep, and the file by whose content a node knows that it sees this folder."""

    results_dir: Path
    mark: Path
    content: str
    shared: bool | None
    work_dir: str
    folder: str = field(default_factory=os.getcwd)
    path: tuple[str, ...] = field(default_factory=lambda: tuple(sys.path))

    @classmethod
    def of(cls, results_dir: Path, shared: bool | None, work_dir: str) -> "Home":
        """Write the file."""
        results_dir.mkdir(parents=True, exist_ok=True)
        mark, content = results_dir / f".{secrets.token_hex(4)}.tmp", secrets.token_hex(8)
        mark.write_text(content)
        return cls(results_dir=results_dir, mark=mark, content=content, shared=shared, work_dir=work_dir)

    @property
    def is_here(self) -> bool:
        """Whether this machine sees the folder."""
        if self.shared is not None:
            return self.shared
        try:
            return self.mark.read_text() == self.content
        except OSError:
            return False

    def recorded(self) -> frozenset[str]:
        """Return the runs that have a finished record."""
        return frozenset(path.parent.name for path in record_paths(self.results_dir) if finished(path) is not None)


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a task returns: its `JobReturn`, when it started, and from a folder of its node the runs and `run.json`."""

    job_return: JobReturn
    started: float
    runs: Mapping[str, bytes] = field(default_factory=dict)
    announced: bytes | None = None


def run_on_node(
    shared: bytes, config: DictConfig, home: Home, recorded: Collection[str], parents: Mapping[str, bytes]
) -> Result:
    """Run a job on a node of the cluster; `parents` are packed runs that it may start from."""
    import torch  # noqa: PLC0415 - slow to import

    enter_folder(home)
    torch.set_num_threads(int(os.environ[THREADS[0]]))
    sweep, started = enter(shared), time.time()
    callbacks = JobStart(sweep.hydra_context.callbacks)
    context = HydraContext(config_loader=sweep.hydra_context.config_loader, callbacks=callbacks)  # type: ignore[arg-type]
    sweep = replace(sweep, hydra_context=context)
    if home.is_here:
        return Result(job_return=portable_return(run_one(sweep, config)), started=started)
    folder = node_folder(home)
    for run_id, content in parents.items():
        publish_packed(content, folder / "runs" / run_id)
    for path in (folder / "runs").glob("*"):
        if path.name in recorded and path.name not in parents:
            shutil.rmtree(path, ignore_errors=True)
    with open_dict(config):
        config.paths.results_dir = str(folder)
        config.hydra.sweep.dir = str(folder / "jobs" / f"{os.getpid()}")
    rerun = bool(config.get("rerun"))
    with away_from_home(()) if rerun else away_from_home(recorded):
        job_return = portable_return(run_one(sweep, config))
    new = [path.parent for path in record_paths(folder) if path.parent.name not in parents]
    announced = Path(str(config.hydra.sweep.dir)) / str(config.hydra.sweep.subdir) / "run.json"
    return Result(
        job_return=job_return,
        started=started,
        runs={path.name: packed(path) for path in new},
        announced=announced.read_bytes() if announced.exists() else None,
    )


def enter_folder(home: Home) -> None:
    """Go to the working folder of the sweep, if this machine has it, and import from where the sweep does."""
    if Path(home.folder).is_dir():
        os.chdir(home.folder)
    sys.path.extend(path for path in home.path if path not in sys.path)


def node_folder(home: Home) -> Path:
    """Return the results folder of this node for a sweep that it does not see."""
    import ray  # noqa: PLC0415 - an extra

    node = ray.get_runtime_context().get_node_id()[:12]
    digest = hashlib.sha256(str(home.results_dir).encode()).hexdigest()[:12]
    folder = Path(home.work_dir).expanduser() / f"{digest}-{node}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def portable_return(job_return: JobReturn) -> JobReturn:
    """Return a `JobReturn` without its configs, its error in the form of `portable`."""
    job_return.cfg = job_return.hydra_cfg = None
    if job_return.status != JobStatus.COMPLETED:
        job_return.return_value = portable(job_return._return_value)
    return job_return


class JobStart:
    """Hydra's callbacks of a job, but for its end: that is called where the sweep was started."""

    def __init__(self, callbacks: Any) -> None:
        self.callbacks = callbacks

    def on_job_start(self, **arguments: Any) -> None:
        """Call the callbacks."""
        self.callbacks.on_job_start(**arguments)

    def on_job_end(self, **_: Any) -> None:
        """Leave the sweep."""
        leave_sweep()


class RayTasks:
    """Executes calls as tasks; the slots are what the cluster has now."""

    attempts = ATTEMPTS
    waits = True

    def __init__(self, sweep: Sweep, home: Home, *, cpus: int, gpus: float) -> None:
        import ray  # noqa: PLC0415 - an extra

        self.sweep, self.home, self.cpus, self.gpus = sweep, home, cpus, gpus
        threads = dict.fromkeys(THREADS, str(cpus))
        self._task = ray.remote(run_on_node).options(
            num_cpus=cpus, num_gpus=gpus, max_retries=0, runtime_env={"env_vars": threads}
        )
        self._running: dict[Any, tuple[int, JobCall]] = {}
        self._recorded = ray.put(home.recorded())
        self._shared: tuple[Any, Any] = (None, None)

    @property
    def slots(self) -> int:
        """The number of tasks that the living nodes have room for."""
        import ray  # noqa: PLC0415 - an extra

        resources = ray.cluster_resources()
        room = int(resources.get("CPU", 0) // self.cpus)
        return max(1, min(room, int(resources.get("GPU", 0) / self.gpus)) if self.gpus else room)

    def submit(self, index: int, call: Any) -> None:
        """Start a task."""
        self._start(index, call, {})

    def _start(self, index: int, call: JobCall, parents: Mapping[str, bytes]) -> None:
        import ray  # noqa: PLC0415 - an extra

        if self._shared[0] is not call.sent:
            self._shared = call.sent, ray.put(call.sent)
        task = self._task.remote(self._shared[1], call.config, self.home, self._recorded, parents)
        self._running[task] = index, call

    def wait(self, timeout: float | None) -> list[tuple[int, Any]]:
        """Wait for a task; publish the runs that came with it, and report its end here."""
        import ray  # noqa: PLC0415 - an extra

        if not self._running:
            time.sleep(timeout or 0)
        ready = ray.wait(list(self._running), timeout=timeout)[0] if self._running else []
        return [outcome for task in ready for outcome in self._end(task, *self._running.pop(task))]

    def close(self) -> None:
        """Cancel all tasks."""
        import ray  # noqa: PLC0415 - an extra

        self.home.mark.unlink(missing_ok=True)
        for task in self._running:
            ray.cancel(task, force=True)
        self._running.clear()

    def _end(self, task: Any, index: int, call: JobCall) -> list[tuple[int, Any]]:
        import ray  # noqa: PLC0415 - an extra

        try:
            result: Result = ray.get(task)
        except ray.exceptions.RayTaskError as error:
            return [(index, error.cause if isinstance(error.cause, Exception) else error)]
        except ray.exceptions.RayError as error:
            return [(index, WorkerLostError(f"its worker was lost ({type(error).__name__}: {first_line(error)})"))]
        job_return = received(result.job_return)
        raised = error_of(job_return)
        if isinstance(raised, RecordedAtHomeError):
            return self._at_home(index, call, raised.run_id, result)
        if isinstance(raised, HeldError):
            return [(index, job_return)]
        try:
            for run_id, content in result.runs.items():
                publish_packed(content, self.home.results_dir / "runs" / run_id)
            self._announce(call, result)
        except (OSError, ValueError) as problem:
            return [(index, problem)]
        overrides = list(call.config.hydra.overrides.task)
        return [(index, self.sweep.end((call.number, overrides), job_return, started=result.started))]

    def _at_home(self, index: int, call: JobCall, run_id: str, result: Result) -> list[tuple[int, Any]]:
        """Report a run that has a record here, or send the task again with the run that it starts from."""
        own = json.loads(result.announced or b"{}").get("run_id")
        if own == run_id:
            return [(index, run_one(self.sweep, call.config))]
        folder = self.home.results_dir / "runs" / run_id
        self._start(index, call, {run_id: packed(folder)})
        return []

    def _announce(self, call: JobCall, result: Result) -> None:
        """Write the `run.json` that a node has written into a folder of its own."""
        if result.announced is not None:
            folder = Path(str(call.config.hydra.sweep.dir)) / str(call.config.hydra.sweep.subdir)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "run.json").write_bytes(result.announced)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text."""
    return next(iter(str(error).splitlines()), "")
