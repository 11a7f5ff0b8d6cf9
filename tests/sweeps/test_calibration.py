"""The split of cores: what is measured, what is kept, who sits where."""

import json
import os

import pytest
from omegaconf import OmegaConf

from xlora_bench.sweeps.estimate.sizes import Encoder
from xlora_bench.sweeps.launchers import calibration, cores
from xlora_bench.sweeps.launchers import placement as seating
from xlora_bench.sweeps.launchers.calibration import Split, Work, best_split, calibrated, candidates, measure
from xlora_bench.sweeps.launchers.cores import count_cores, seats

WORK = Work(width=64, rows=1)


def test_a_small_measurement_has_a_rate_for_each_split(monkeypatch):
    monkeypatch.setattr(calibration, "ROUNDS", 1)
    monkeypatch.setattr(calibration, "SECONDS", 0.05)
    count = min(2, count_cores())
    rates = measure(WORK, cores=count, threads=candidates(count))
    assert set(rates) == ({1, 2} if count == 2 else {1})
    assert all(rate > 1 for rate in rates.values())


def test_threads_that_are_tried():
    assert [candidates(count) for count in (1, 2, 6, 8)] == [[1], [1, 2], [1, 2, 4, 6], [1, 2, 4, 8]]


@pytest.mark.parametrize(
    ("rates", "threads"), [({1: 10.0, 2: 11.0, 8: 3.0}, 2), ({1: 10.0, 2: 10.4, 8: 3.0}, 1), ({1: 1.0, 8: 9.0}, 8)]
)
def test_the_best_split_and_more_workers_in_a_tie(rates, threads):
    split = best_split(rates, cores=8)
    assert (split.workers, split.threads) == (8 // threads, threads)
    assert split.rates == {str(key): rate for key, rate in rates.items()}


def test_it_is_measured_once_per_kind_of_work_and_again_if_the_file_is_damaged(tmp_path, monkeypatch, caplog):
    measured = []
    monkeypatch.setattr(calibration, "measure", lambda work, **_: measured.append(work) or {1: 1.0, 2: 9.0})

    def ask(model):
        return calibrated(lambda: (WORK, [1, 2]), about={"model": model, "cores": 4}, cache_dir=tmp_path)

    split, path = ask("a")
    assert split == Split(workers=2, threads=2, rates={"1": 1.0, "2": 9.0})
    assert ask("a") == (split, path)
    assert len(measured) == 1
    assert json.loads(path.read_text())["model"] == "a"
    assert ask("b")[1] != path
    path.write_text("{")
    assert ask("a") == (split, path)
    assert len(measured) == 3
    assert "is made again" in caplog.text


@pytest.fixture
def four_cores(monkeypatch, tmp_path):
    """A machine with cores {0,4} {1,5} {2,6} {3,7}, of which 3 and 7 are not ours, no quota and no GPU."""
    for cpu in range(8):
        folder = tmp_path / f"cpu{cpu}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(f"{cpu % 4},{cpu % 4 + 4}\n")
    monkeypatch.setattr(cores, "TOPOLOGY", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 4, 5, 6}, raising=False)
    monkeypatch.setattr(cores.joblib, "cpu_count", lambda **_: 6)
    monkeypatch.setattr(seating, "visible_devices", list)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


@pytest.mark.usefixtures("four_cores")
def test_workers_that_fill_the_cores_are_bound_to_their_own():
    assert count_cores() == 3
    assert [seat.cpus for seat in seats(3, 1, devices=[])] == [{0, 4}, {1, 5}, {2, 6}]
    assert [seat.cpus for seat in seats(1, 3, devices=[])] == [{0, 1, 2, 4, 5, 6}]
    assert [seat.cpus for seat in seats(2, 1, devices=[])] == [None, None]


@pytest.mark.usefixtures("four_cores")
def test_a_quota_below_the_cores_counts_and_binds_nobody(monkeypatch):
    monkeypatch.setattr(cores.joblib, "cpu_count", lambda **_: 2)
    assert count_cores() == 2
    assert [seat.cpus for seat in seats(2, 1, devices=[])] == [None, None]


@pytest.mark.usefixtures("four_cores")
@pytest.mark.parametrize(
    ("workers", "threads", "said"),
    [(4, 1, r"workers` x `hydra.launcher.threads` \(=4 x 1\) must be at most the 3"), (0, 1, r"workers` \(=0\)")],
)
def test_what_cannot_be_is_named(workers, threads, said):
    with pytest.raises(ValueError, match=said):
        seats(workers, threads, devices=[])


@pytest.mark.usefixtures("four_cores")
def test_what_is_given_is_kept_and_the_rest_chosen(monkeypatch, capsys):
    monkeypatch.setattr(seating, "_calibrated", lambda *_, **__: (Split(workers=1, threads=3), " (measured)"))
    config = OmegaConf.create({})

    def chosen(**options):
        found = seating.choose_seats(config, **({"workers": None, "threads": None, "calibrate": True} | options))
        return len(found), found[0].threads, [seat.device for seat in found if seat.device]

    assert chosen() == (1, 3, [])
    assert capsys.readouterr().out == "parallel: workers 1 x threads 3 on 3 cores (measured)\n"
    assert chosen(calibrate=False) == (3, 1, [])
    assert chosen(workers=2) == (2, 1, [])
    assert chosen(threads=2) == (1, 2, [])
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert chosen() == (3, 1, [])
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(seating, "visible_devices", lambda: ["5", "7"])
    assert chosen() == (2, 1, ["5", "7"])
    config.trainer = {"accelerator": "cpu"}
    assert chosen() == (1, 3, [])


def test_devices_are_named_as_the_environment_names_them(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert cores.visible_devices() == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a, GPU-b")
    assert cores.visible_devices() == ["GPU-a", "GPU-b"]


def test_workers_have_to_fit_into_memory(monkeypatch):
    large = Encoder(layers=24, width=1024, inner=4096)  # 302M weights: 1.2 GB, 4.7 with the rest
    monkeypatch.setattr(seating.psutil, "virtual_memory", lambda: type("Memory", (), {"available": 12e9}))
    assert seating.affordable(8, encoder=large) == [4, 8]
    monkeypatch.setattr(seating.psutil, "virtual_memory", lambda: type("Memory", (), {"available": 1e9}))
    assert seating.affordable(8, encoder=large) == [8]


def test_the_kind_of_work_is_read_from_the_config(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(
        seating,
        "calibrated",
        lambda work, **known: asked.append((*work(), known)) or (Split(workers=2, threads=1), tmp_path),
    )
    config = {"model": {"name": "FacebookAI/roberta-large"}, "task": {"batch_size": 30}, "paths": {"cache_dir": "c"}}
    split, _ = seating._calibrated(OmegaConf.create(config), cores=2)
    ((work, threads, known),) = asked
    assert split.workers == 2
    assert work == Work(width=1024, rows=8)
    assert set(threads) <= {1, 2}
    assert (known["cache_dir"].name, known["about"]["model"], known["about"]["cores"]) == (
        "c",
        "FacebookAI/roberta-large",
        2,
    )
    seating._calibrated(OmegaConf.create({}), cores=2)
    assert asked[1][0] == Work(width=768, rows=8)
