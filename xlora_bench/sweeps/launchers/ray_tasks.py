"""`hydra/launcher=ray`: the jobs of a sweep as tasks of a Ray cluster. What a task does is in `ray_node.py`."""

import atexit
import logging
import os
import socket
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from xlora_bench.runs.claim import AtHomeError, HeldError
from xlora_bench.runs.console import console
from xlora_bench.runs.parcel import newest_attempt, packed, publish_packed
from xlora_bench.runs.record import RECORD, finished
from xlora_bench.sweeps.launchers.launcher import JobCall, RunLauncher, Sweep, run_one
from xlora_bench.sweeps.launchers.placement import count_cores
from xlora_bench.sweeps.launchers.ray_node import AttemptKeeper, Home, Result, Sent, announced_id, run_on_node
from xlora_bench.sweeps.launchers.schedule import Executor, WorkerLostError, error_of
from xlora_bench.sweeps.launchers.sent_errors import received
from xlora_bench.sweeps.launchers.workers import THREADS, check_runs_per_device

log = logging.getLogger(__name__)

ATTEMPTS = 4
CONNECT_SECONDS = 5.0
UNITS = 10_000
"""Parts of a GPU in which Ray counts: a sixth is rounded down to .1666, since six times .1667 is more than a GPU."""


class RayLauncher(RunLauncher):
    """Runs each job as a Ray task with `cpus` cores, which are its threads, and `gpus` GPUs (null: 1 if there are any).

    `address` is that of a running cluster, `auto` for one on this machine; null: the environment variable RAY_ADDRESS,
    else a new cluster of this machine alone. `shared` tells whether the nodes see `paths.results_dir` (null: each task
    looks). `work_dir` is the folder of a node that does not. A task whose node is lost is tried again. With
    `runs_per_device` above 1, each run gets that part of a GPU.

    Raises:
        ValueError: if an option has a wrong value; at setup, if Ray is not installed; at launch, if the cluster does
            not answer, or no node has what a run needs.
    """

    def __init__(
        self,
        *,
        address: str | None = None,
        cpus: int = 1,
        gpus: float | None = None,
        shared: bool | None = None,
        work_dir: str = "~/.cache/xlora_bench/ray",
        runs_per_device: int = 1,
    ) -> None:
        super().__init__()
        if not isinstance(cpus, int) or cpus < 1:
            raise ValueError(f"`hydra.launcher.cpus` (={cpus}) must be a whole number of at least 1")
        if gpus is not None and gpus < 0:
            raise ValueError(f"`hydra.launcher.gpus` (={gpus}) must be at least 0, or null for 1 if there are any")
        check_runs_per_device(runs_per_device)
        if gpus is not None and runs_per_device > 1:
            raise ValueError(
                f"`hydra.launcher.runs_per_device` (={runs_per_device}) and `hydra.launcher.gpus` (={gpus:g}) both set "
                "the GPUs of a run; leave one of them out"
            )
        self.runs_per_device = runs_per_device
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
        if self.runs_per_device > 1 and not resources.get("GPU"):
            raise ValueError(
                f"`hydra.launcher.runs_per_device` (={self.runs_per_device}) needs a GPU, and the Ray cluster has "
                "none: leave it out, and set cpus"
            )
        part = UNITS // self.runs_per_device / UNITS
        gpus = (part if resources.get("GPU") else 0.0) if self.gpus is None else float(self.gpus)
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


@dataclass(frozen=True)
class Running:
    """A task: the index of its call, the call, and the ids of the runs whose record or attempt at home it needs."""

    index: int
    call: JobCall
    needs: tuple[str, ...] = ()


class RayTasks:
    """Executes calls as tasks; the slots are what the cluster has now."""

    attempts = ATTEMPTS
    waits = True

    def __init__(self, sweep: Sweep, home: Home, *, cpus: int, gpus: float) -> None:
        import ray  # noqa: PLC0415 - an extra

        self.sweep, self.home, self.cpus, self.gpus = sweep, home, cpus, gpus
        threads = dict.fromkeys(THREADS, str(cpus))
        self._task = ray.remote(max_calls=calls_per_worker(gpus))(run_on_node).options(
            num_cpus=cpus, num_gpus=gpus, max_retries=0, runtime_env={"env_vars": threads}
        )
        self._running: dict[Any, Running] = {}
        self._ends = home.ends()
        self._sent_ends: Any = None  # None: not sent since a change
        self._shared: tuple[Any, Any] = (None, None)
        self._keeper: Any = None

    @property
    def slots(self) -> int:
        """The number of tasks that the living nodes have room for."""
        import ray  # noqa: PLC0415 - an extra

        resources = ray.cluster_resources()
        room = int(resources.get("CPU", 0) // self.cpus)
        return max(1, min(room, int(resources.get("GPU", 0) / self.gpus)) if self.gpus else room)

    def submit(self, index: int, call: Any) -> None:
        """Start a task."""
        self._start(Running(index, call))

    def _start(self, running: Running) -> None:
        import ray  # noqa: PLC0415 - an extra

        call = running.call
        if self._shared[0] is not call.sent:
            self._shared = call.sent, ray.put(call.sent)
        if self._sent_ends is None:
            self._sent_ends = ray.put(self._ends)
        if self._keeper is None and self.home.shared is not True:
            self._keeper = keeper(self.home)
        sent = replace(self._sent(running.needs), kept=self.home.attempts(), keeper=self._keeper)
        task = self._task.remote(self._shared[1], call.config, self.home, self._sent_ends, sent)
        self._running[task] = running

    def wait(self, timeout: float | None) -> list[tuple[int, Any]]:
        """Wait for a task; publish the runs that came with it, and report its end here."""
        import ray  # noqa: PLC0415 - an extra

        if not self._running:
            time.sleep(timeout or 0)
        ready = ray.wait(list(self._running), timeout=timeout)[0] if self._running else []
        return [outcome for task in ready for outcome in self._end(task, self._running.pop(task))]

    def close(self) -> None:
        """Cancel all tasks."""
        import ray  # noqa: PLC0415 - an extra

        self.home.mark.unlink(missing_ok=True)
        for task in self._running:
            ray.cancel(task, force=True)
        self._running.clear()
        if self._keeper is not None:
            ray.kill(self._keeper)
            self._keeper = None

    def _end(self, task: Any, running: Running) -> list[tuple[int, Any]]:
        import ray  # noqa: PLC0415 - an extra

        index, call = running.index, running.call
        try:
            result: Result = ray.get(task)
        except ray.exceptions.RayTaskError as error:
            return [(index, error.cause if isinstance(error.cause, Exception) else error)]
        except ray.exceptions.RayError as error:
            return [(index, WorkerLostError(f"its worker was lost ({type(error).__name__}: {first_line(error)})"))]
        job_return = received(result.job_return)
        raised = error_of(job_return)
        if isinstance(raised, AtHomeError):
            return self._at_home(running, raised.run_id, result)
        if isinstance(raised, HeldError):
            return [(index, job_return)]
        try:
            for run_id, new in result.runs.items():
                publish_packed(new.content, self.home.folder_of(run_id), replaces=new.replaces)
                self._look(run_id)
            self._announce(call, result)
        except (OSError, ValueError) as problem:
            return [(index, problem)]
        overrides = list(call.config.hydra.overrides.task)
        return [(index, self.sweep.end((call.number, overrides), job_return, started=result.started))]

    def _look(self, run_id: str) -> None:
        """Let later tasks know which record of a run is here now."""
        record = finished(self.home.folder_of(run_id) / RECORD)
        self._ends.pop(run_id, None)
        if record is not None:
            self._ends[run_id] = record.finished
        self._sent_ends = None

    def _at_home(self, running: Running, run_id: str, result: Result) -> list[tuple[int, Any]]:
        """Report a run that has a record here, or send the task again with the run, or the attempt, that it needs."""
        self._look(run_id)
        if run_id in self._ends and announced_id(result.announced) == run_id:
            return [(running.index, run_one(self.sweep, running.call.config))]
        self._start(replace(running, needs=tuple(dict.fromkeys([*running.needs, run_id]))))
        return []

    def _sent(self, needs: Iterable[str]) -> Sent:
        """Return what is here of the runs that a task needs: their records, else their last attempts."""
        runs: dict[str, bytes] = {}
        attempts: dict[str, tuple[int, bytes] | None] = {}
        for run_id in needs:
            folder = self.home.folder_of(run_id)
            if run_id in self._ends:
                runs[run_id] = packed(folder)
                continue
            try:
                attempts[run_id] = newest_attempt(folder)
            except FileNotFoundError:  # a later one takes its place just now: the task asks again
                continue
            except OSError as error:
                log.warning("the checkpoint of run %s cannot be read: %s", run_id, error)
                attempts[run_id] = None
            how = "starts over" if attempts[run_id] is None else "goes on from the last checkpoint that came home"
            log.warning("run %s %s", run_id, how)
        return Sent(runs=runs, attempts=attempts)

    def _announce(self, call: JobCall, result: Result) -> None:
        """Write the `run.json` that a node has written into a folder of its own."""
        if result.announced is not None:
            folder = Path(str(call.config.hydra.sweep.dir)) / str(call.config.hydra.sweep.subdir)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "run.json").write_bytes(result.announced)


def keeper(home: Home) -> Any:
    """Return the actor of an `AttemptKeeper` on this machine; None if no other is in the cluster.

    None, too, for a client of the cluster (`ray://`): its machine is not in the cluster.
    """
    import ray  # noqa: PLC0415 - an extra
    from ray.util.client import ray as client  # noqa: PLC0415 - as above
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy  # noqa: PLC0415 - as above

    if client.is_connected():
        return None
    own = ray.get_runtime_context().get_node_id()
    if all(node["NodeID"] == own for node in ray.nodes() if node["Alive"]):
        return None
    here = NodeAffinitySchedulingStrategy(own, soft=False)
    return ray.remote(num_cpus=0, max_restarts=-1)(AttemptKeeper).options(scheduling_strategy=here).remote(home)


def calls_per_worker(gpus: float) -> int:
    """Return how many tasks a worker process may execute; 0: no limit, so that later runs reuse its caches.

    1 if a node has several GPUs: Ray may give a worker another GPU for its next task, but CUDA keeps the first one.
    """
    import ray  # noqa: PLC0415 - an extra

    return int(gpus > 0 and any(node["Resources"].get("GPU", 0) > 1 for node in ray.nodes()))


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text."""
    return next(iter(str(error).splitlines()), "")
