"""W&B and csv loggers: names, groups, and a run that goes on without W&B."""

import json
import logging
import subprocess
import sys
from dataclasses import replace

import pytest
from filelock import FileLock, Timeout
from lightning.pytorch.loggers import CSVLogger

from xlora_bench.runs.run import Run
from xlora_bench.training.loggers import LightningLogs, RunLabels, TrackioLogs, WandbLogs, flatten, wandb_logs
from xlora_bench.training.loggers.wandb_logs import sync_command
from xlora_bench.training.prepare import run_labels

pytestmark = pytest.mark.slow

LABELS = RunLabels(run_id="c", group="g", config_label="p", name="n", tags=("t",), names={}, options={})


class FakeRun:
    """A W&B run that accepts everything."""

    def define_metric(self, *_, **__):
        pass


@pytest.mark.parametrize("module", [None, type(sys)("wandb")], ids=["absent", "failing"])
def test_a_run_goes_on_without_wandb(module, tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "wandb", module)
    with caplog.at_level(logging.WARNING):
        logger = WandbLogs().open(tmp_path, LABELS)
    assert isinstance(logger, CSVLogger)
    assert "W&B is not available" in caplog.text
    WandbLogs().close(logger, {})


@pytest.mark.parametrize(("by", "group"), [("sweep", "g"), ("config", "p")])
def test_runs_are_grouped_by_sweep_or_by_place_of_the_table(by, group, tmp_path, monkeypatch):
    options_seen = {}
    module = type(sys)("wandb")
    module.init = lambda **options: options_seen.update(options) or FakeRun()
    module.Settings = dict
    monkeypatch.setitem(sys.modules, "wandb", module)
    WandbLogs(group=by).open(tmp_path, LABELS)
    assert options_seen["group"] == group
    with pytest.raises(ValueError, match=r"`logger.group` \(='seed'\) must be 'sweep' or 'config'"):
        WandbLogs(group="seed")


def test_the_seeds_of_one_config_share_their_label(tmp_path):
    choices = dict.fromkeys(("model", "task", "adapter", "init_scheme"), "x")
    configs = [{"seed": seed, "adapter": {"rank": 2}, "optimizer": {"lr": lr}} for seed, lr in ((0, 1), (1, 1), (0, 2))]
    runs = [Run.of(one, choices=choices, data="d", results_dir=tmp_path) for one in configs]
    first, other_seed, other_rate = (run_labels(one) for one in runs)
    assert first.config_label == other_seed.config_label != other_rate.config_label
    assert first.name != other_seed.name


def test_a_run_is_named_by_its_choices_and_its_options_hold_neither_classes_nor_what_changes_no_number(tmp_path):
    config = {
        "seed": 3,
        "adapter": {"_target_": "xlora_bench.LoRA", "rank": 2, "alpha": 4, "bias": None},
        "callbacks": {"stop": {"_target_": "lightning.pytorch.callbacks.EarlyStopping", "patience": 1}},
        "task": {"_target_": "xlora_bench.TextTask", "headline": "f1"},
        "paths": {"results_dir": "x"},
        "logger": {"wandb": {"entity": "me"}},
    }
    choices = {"adapter": "pissa", "init_scheme": "svd_both", "model": "m", "task": "t", "targets": "q", "logger": "l"}
    labels = run_labels(Run.of(config, choices=choices, data="d", results_dir=tmp_path / "x"))
    names = {"adapter": "pissa", "init_scheme": "svd_both", "model": "m", "task": "t", "targets": "q"}
    assert labels.names == {**names, "rank": 2, "seed": 3}
    assert labels.options == {
        "adapter": {"rank": 2, "alpha": 4},
        "callbacks": {"stop": {"patience": 1}},
        "task": {"headline": "f1"},
    }
    assert labels.config == {
        **labels.names,
        "adapter.rank": 2,
        "adapter.alpha": 4,
        "callbacks.stop.patience": 1,
        "task.headline": "f1",
    }
    assert (labels.headline, labels.results_dir) == ("f1", tmp_path / "x")


@pytest.mark.parametrize("folder", ["multirun", "it's a folder"])
def test_the_command_that_uploads_all_offline_runs_of_a_folder(tmp_path, folder):
    made = tmp_path / folder / "wandb" / "offline-run-1"
    made.mkdir(parents=True)
    words = sync_command(tmp_path / folder).replace("wandb sync", "printf '%s'", 1)
    assert subprocess.run(["sh", "-c", words], capture_output=True, text=True, check=True).stdout == str(made)


STRANGE = "<script>alert(1)</script>|😀\n" + "x" * 200


@pytest.mark.parametrize("artifacts", [False, True])
def test_strange_names_and_on_request_the_files_reach_wandb(artifacts, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "staged"))
    labels = replace(
        LABELS, name=STRANGE, group=STRANGE, tags=(STRANGE, "t", "t"), names={"adapter": STRANGE}, results_dir=tmp_path
    )
    for name in ("adapter.safetensors", "predictions.parquet"):
        (tmp_path / name).write_bytes(b"x")
    logs = WandbLogs(artifacts=artifacts)
    logger = logs.open(tmp_path, labels)
    logger.log_metrics({"train/loss": 0.5}, step=3)
    logs.close(logger, {"score": 0.25})
    (path,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    entries = inspected(path)
    (about,) = (one["run"] for one in entries if one["type"] == "run")
    assert about["config"]["update"]["adapter"] == STRANGE
    assert len(about["display_name"]) == len(about["run_group"]) == 128
    assert about["display_name"].startswith("<script>alert(1)</script>|😀 xxx")
    assert [len(tag) for tag in about["tags"]] == [64, 1]
    logged = {one["artifact"]["type"] for one in entries if one["type"] == "artifact"}
    assert logged == ({"adapter", "predictions"} if artifacts else set())


def inspected(path):
    """Return the entries of an offline run, read with W&B's own reader."""
    reader = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(path)]
    answer = subprocess.run(reader, capture_output=True, text=True, check=True, timeout=60).stdout
    return [json.loads(line) for line in answer.splitlines()]


def test_nested_keys_are_flattened_by_dots():
    assert flatten({"a": {"b": 1, "c": {}}, "d": [2]}) == {"a.b": 1, "a.c": {}, "d": [2]}


@pytest.fixture
def wandb_without_server(monkeypatch):
    """A fake W&B whose server does not answer: the modes in which it was started."""
    modes = []
    module = type(sys)("wandb")

    def init(**options):
        modes.append(options["mode"])
        if options["mode"] == "online":
            raise TimeoutError("90 s")
        return FakeRun()

    module.init, module.Settings = init, dict
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.setattr("lightning.pytorch.loggers.WandbLogger", lambda experiment, save_dir: experiment)
    monkeypatch.setattr(wandb_logs, "unanswered", set())
    return modes


def test_a_server_that_does_not_answer_costs_one_time_out_per_sweep(
    wandb_without_server, tmp_path, caplog, monkeypatch
):
    logs = WandbLogs(mode="online")
    labels = replace(LABELS, sweep_folder=tmp_path)
    for _ in range(3):
        logs.open(tmp_path, labels)
    monkeypatch.setattr(wandb_logs, "unanswered", set())  # as in another process of the sweep
    logs.open(tmp_path, labels)
    assert wandb_without_server == ["online", "offline", "offline", "offline", "offline"]
    assert [record.message for record in caplog.records] == [
        "W&B is not available online (90 s); from now on runs are logged offline"
    ]
    (tmp_path / "other").mkdir()
    logs.open(tmp_path, replace(LABELS, sweep_folder=tmp_path / "other"))
    assert wandb_without_server[5:] == ["online", "offline"]


def test_single_runs_leave_no_marker(wandb_without_server, tmp_path):
    WandbLogs(mode="online").open(tmp_path, LABELS)
    assert not list(tmp_path.iterdir())


def test_trackio_gets_the_curves_the_config_and_the_end(tmp_path, monkeypatch):
    calls = []

    class Run:
        name = "n"

        def log(self, metrics, step):
            calls.append((metrics, step))

        def finish(self):
            calls.append("finish")

    module = type(sys)("trackio")
    module.init = lambda project, **options: calls.append((project, options)) or Run()
    monkeypatch.setitem(sys.modules, "trackio", module)
    logger = TrackioLogs(project="p").open(tmp_path, LABELS)
    logger.log_metrics({"train/loss": 0.5}, step=3)
    TrackioLogs().close(logger, {})
    assert calls == [
        ("p", {"name": "n-c", "group": "g", "config": {"run_id": "c"}}),
        ({"train/loss": 0.5}, 3),
        "finish",
    ]


def test_save_dir_and_name_are_the_runs_own_unless_the_options_set_them(tmp_path):
    made = LightningLogs(kind=CSVLogger, options={"name": "x"}).open(tmp_path, LABELS)
    assert made.log_dir == str(tmp_path / "x" / "version_0")
    other = LightningLogs(kind=CSVLogger, options={"save_dir": str(tmp_path / "y")}).open(tmp_path, LABELS)
    assert other.root_dir.startswith(str(tmp_path / "y"))


class Tracked(CSVLogger):
    """A logger with MLflow's option, which tries the lock of the file while it is made."""

    def __init__(self, save_dir, tracking_uri=None):
        super().__init__(save_dir)
        self.tracking_uri = tracking_uri
        lock = FileLock(f"{(tracking_uri or '').removeprefix('sqlite:///')}.lock", is_singleton=False)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            self.alone = True
        else:
            lock.release()
            self.alone = False


@pytest.mark.parametrize(
    ("environment", "options", "uri"),
    [
        (None, {"tracking_uri": None}, "sqlite:///{folder}/mlflow.db"),
        ("http://localhost:5000", {}, "http://localhost:5000"),
        ("http://localhost:5000", {"tracking_uri": "sqlite:///{folder}/mine.db"}, "sqlite:///{folder}/mine.db"),
    ],
)
def test_mlflow_has_a_database_in_the_results_folder_made_by_one_process_at_a_time(
    environment, options, uri, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    if environment:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", environment)
    filled = {key: value and value.format(folder=tmp_path) for key, value in options.items()}
    labels = replace(LABELS, results_dir=tmp_path)
    made = LightningLogs(kind=Tracked, options=filled).open(tmp_path / "run", labels)
    assert made.tracking_uri == uri.format(folder=tmp_path)
    assert made.alone == made.tracking_uri.startswith("sqlite:")
