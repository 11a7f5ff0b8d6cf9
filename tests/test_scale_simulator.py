"""The simulator of sweeps on many GPUs against closed forms."""

import math
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("loralib", reason="the extra `bench` is not installed")

from benchmarks.scale_simulator import Cluster, Costs, Simulation, durations, loads


def simulated(cluster):
    return Simulation(cluster).outcome()


@pytest.mark.parametrize(("runs", "workers"), [(12, 4), (13, 4), (3, 8), (1000, 7), (7, 1)])
def test_equal_runs_without_failures_take_whole_rounds(runs, workers):
    out = simulated(Cluster(durations=np.full(runs, 60.0), workers=workers))
    rounds = math.ceil(runs / workers)
    assert out.makespan == pytest.approx(60 * rounds)
    assert out.idle == pytest.approx(60 * (workers * rounds - runs))
    assert (out.repeated, out.down, out.waiting, out.walking) == (0, 0, 0, 0)


def test_one_worker_takes_the_sum_of_all_runs_and_of_their_ends():
    seconds = durations(200, mean=60, seed=1)
    costs = Costs(end=5, per_ended=2, operation=1e-3)
    out = simulated(Cluster(durations=seconds, workers=1, costs=costs))
    ends = 1e-3 * (5 * 200 + 2 * 200 * 199 / 2)
    last = 1e-3 * (5 + 2 * 199)  # the driver reports it after the worker has written it
    assert out.makespan == pytest.approx(seconds.sum() + ends + last)
    assert out.waiting == pytest.approx(ends)


def test_every_worker_has_each_run_once_in_its_list_its_own_first():
    simulation = Simulation(Cluster(durations=np.ones(23), workers=5))
    for worker in range(5):
        listed = simulation.run_at(worker, np.arange(23)).tolist()
        own = list(range(worker, 23, 5))
        others = [run for run in range(23) if run not in own]
        assert listed == [*own, *others[worker:], *others[:worker]]


def test_lost_work_is_that_of_exponential_failures():
    epoch, between, epochs, runs = 60.0, 300.0, 10, 2000
    cluster = Cluster(durations=np.full(runs, epoch * epochs), workers=1, epochs=epochs, between_failures=between)
    out = simulated(replace(cluster, restart=100.0, lease=0.0))
    failures = runs * epochs * math.expm1(epoch / between)
    assert out.failures == pytest.approx(failures, abs=4 * math.sqrt(failures * math.exp(epoch / between)))
    # an attempt at an epoch fails at x < epoch, which is exponential and cut off there
    mean = between - epoch / math.expm1(epoch / between)
    assert out.repeated / out.failures == pytest.approx(mean, abs=4 * epoch / math.sqrt(12 * out.failures))
    assert out.down == 100 * out.failures
    assert out.makespan == pytest.approx(runs * epoch * epochs + out.repeated + out.down)


def test_the_run_of_a_failed_node_waits_for_its_lease():
    cluster = Cluster(durations=np.full(1, 6000.0), workers=1, between_failures=1000.0, restart=0.0, lease=60.0)
    out = simulated(cluster)
    assert out.failures > 2
    assert out.makespan == pytest.approx(6000 + out.repeated + 60 * out.failures)


def test_operations_per_second():
    mean, peak = loads([(0.0, 100.0, 100.0), (50.0, 60.0, 200.0)])
    assert (mean, peak) == (pytest.approx(3), pytest.approx(21))
