"""What a config may call: classes derived from the bases of its groups, checked before the call."""

import os
import pickle
import re
import sys

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from tests.helpers.apps import SMALL, run
from tests.helpers.names import CONF, ROOT
from xlora_bench.system.checked_logging import check_logging_config
from xlora_bench.training.options import check_config, check_group
from xlora_bench.training.trust import BASES, SEVERAL

PAYLOADS = {
    "pickle": lambda mark: {"_target_": "pandas.read_pickle", "filepath_or_buffer": str(mark)},
    "open": lambda mark: {"_target_": "builtins.open", "file": str(mark), "mode": "w"},
    "hub": lambda mark: {
        "_target_": "torch.hub.load",
        "repo_or_dir": str(mark.parent),
        "model": "x",
        "source": "local",
    },
    "link": lambda mark: {"_target_": "os.symlink", "src": "x", "dst": str(mark)},
    "process": lambda mark: {"_target_": "subprocess.Popen", "args": ["touch", str(mark)]},
    "another kind": lambda mark: {"_target_": "torch.nn.Linear", "in_features": 2, "out_features": 2},
}
OWN = """
import lightning
import torch
from lightning.pytorch.loggers import CSVLogger
from xlora_bench import AdamW, KaimingInit, LoRA, Pretrained, Schedule, Targets, TextTask
from xlora_bench.training.loggers import CSVLogs

{classes}
"""
PARENTS = {
    "model": ["Pretrained"],
    "adapter": ["LoRA"],
    "init_scheme": ["KaimingInit"],
    "targets": ["Targets"],
    "task": ["TextTask"],
    "optimizer": ["AdamW", "torch.optim.AdamW"],
    "scheduler": ["Schedule", "torch.optim.lr_scheduler.CosineAnnealingLR"],
    "trainer": ["lightning.Trainer"],
    "logger": ["CSVLogs", "CSVLogger"],
    "callbacks": ["lightning.Callback"],
}


@pytest.fixture
def config():
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return OmegaConf.to_container(compose("config"), resolve=True)


@pytest.fixture
def mark(tmp_path):
    """What a payload would write; for a pickle, what its file would write when it is read."""
    (tmp_path / "hubconf.py").write_text(f"open({str(tmp_path / 'mark')!r}, 'w').close()\n")
    return tmp_path / "mark"


@pytest.mark.parametrize("payload", PAYLOADS)
@pytest.mark.parametrize("group", BASES)
def test_a_group_calls_no_other_class_or_function(group, payload, config, mark):
    if payload == "pickle":
        mark.write_bytes(pickle.dumps(1))
    node = PAYLOADS[payload](mark)
    config[group] = {"mine": node} if group in SEVERAL else node
    (line,) = check_config(config)[1]
    key = f"{group}.mine" if group in SEVERAL else group
    assert line.startswith(f"`{key}._target_` (='{node['_target_']}') ")
    assert "must be a class derived from" in line
    assert payload == "pickle" or not os.path.lexists(mark)


@pytest.mark.parametrize(
    ("group", "node", "key"),
    [
        ("adapter", {"rank_pattern": {"x": {"_target_": "builtins.open"}}}, "adapter.rank_pattern.x._target_"),
        ("targets", {"modules": ["x", {"_target_": "subprocess.Popen", "args": "x"}]}, "targets.modules.1._target_"),
        ("optimizer", {"_target_": "torch.optim.SGD", "_partial_": True}, "optimizer._partial_"),
        ("task", {"_args_": [{"_target_": "os.symlink"}]}, "task._args_"),
        ("model", {"_partial_": True}, "model._partial_"),
        ("trainer", {"callbacks": [{"_target_": "builtins.open"}]}, "trainer.callbacks.0._target_"),
        ("logger", {"csv": {"_target_": "xlora_bench.CSVLogs", "_args_": []}}, "logger.csv._args_"),
    ],
)
def test_nodes_inside_a_node_are_checked_and_options_go_by_name(group, node, key, config):
    config[group] = {**config[group], **node}
    lines = check_config(config)[1]
    assert any(line.startswith(f"`{key}` (=") for line in lines), lines


@pytest.mark.parametrize(("group", "parent"), [(group, one) for group, several in PARENTS.items() for one in several])
def test_a_class_of_the_user_passes(group, parent, config, tmp_path, monkeypatch):
    name = f"own_{group}_{parent.replace('.', '_')}"
    (tmp_path / f"{name}.py").write_text(OWN.format(classes=f"class Own({parent}):\n    pass\n"))
    monkeypatch.syspath_prepend(tmp_path)
    node = {"_target_": f"{name}.Own"}
    if parent == "torch.optim.AdamW":
        node["lr"] = 1e-3
    elif group not in SEVERAL and "torch" not in parent:
        node = {**config[group], **node}
    config[group] = {"mine": node} if group in SEVERAL else node
    assert check_config(config)[1] == []
    sys.modules.pop(name)


def test_every_group_of_a_run_has_bases(config):
    assert {group for group, node in config.items() if "_target_" in str(node)} <= set(BASES)


def test_what_hydra_calls_itself_is_the_only_exception():
    """Launcher, sweeper and callbacks are made by Hydra; the first two are refused outside of `hydra_plugins`."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = OmegaConf.to_container(compose("config", return_hydra_config=True), resolve=False)
    named = set()

    def walk(node, path):
        if isinstance(node, dict):
            named.update({path} if "_target_" in node else ())
            for key, value in node.items():
                walk(value, f"{path}.{key}" if path else str(key))

    walk(config, "")
    outside = {path for path in named if path.partition(".")[0] not in BASES}
    assert outside == {"hydra.launcher", "hydra.sweeper", "hydra.callbacks.report"}


def test_instantiate_is_called_for_checked_nodes_alone():
    """`check_config` has been before in all of them; a new caller has to use `checked_part`."""
    callers = {
        str(path.relative_to(ROOT / "xlora_bench"))
        for path in (ROOT / "xlora_bench").rglob("*.py")
        if re.search(r"(?<!def )\binstantiate\(", path.read_text())
    }
    checked = {"training/budget/solve.py", "training/trust.py", "training/prepare.py", "sweeps/estimate/sizes.py"}
    assert callers == checked


@pytest.mark.parametrize("group", ["adapter", "optimizer"])
def test_the_line_names_the_bases(group):
    (line,) = check_group(group, {"_target_": "pathlib.Path"})[1]
    bases = {"adapter": "xlora_bench's Adapter or xlora_bench's Method", "optimizer": "xlora_bench's AdamW or torch's"}
    assert f"must be a class derived from {bases[group]}" in line


LOGGING = {
    "handler": "handlers: {x: {(): os.symlink, src: x, dst: MARK}}",
    "class": "handlers: {x: {class: subprocess.Popen, args: [touch, MARK]}}",
    "formatter": "formatters: {x: {(): builtins.open, file: MARK, mode: w}}",
    "filter": "filters: {x: {(): builtins.open, file: MARK, mode: w}}",
    "queue": "handlers: {x: {class: logging.handlers.QueueHandler, queue: {(): builtins.open, file: MARK, mode: w}}}",
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("payload", "node", "sweep"),
    [
        *((payload, "job_logging", ()) for payload in LOGGING),
        ("handler", "hydra_logging", ("-m",)),
        ("handler", "job_logging", ("-m", "hydra/launcher=parallel")),
    ],
)
def test_the_logging_config_of_hydra_calls_classes_of_logging_alone(payload, node, sweep, mark):
    folder = mark.parent / "groups" / "hydra" / node
    folder.mkdir(parents=True)
    text = LOGGING[payload].replace("MARK", str(mark))
    root = "[x]" if "handlers" in text else "[]"
    (folder / "mine.yaml").write_text(f"version: 1\n{text}\nroot: {{handlers: {root}}}\n")
    options = ("--config-dir", str(mark.parent / "groups"), *sweep, f"hydra/{node}=mine", *SMALL)
    ended = run(mark.parent, *options)
    assert not os.path.lexists(mark)
    if node == "hydra_logging" or not sweep:
        assert ended.returncode == 1
        (line,) = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    else:
        assert ended.returncode == 2
        line = ended.stderr
    assert "in a logging config" in line


@pytest.mark.slow
@pytest.mark.parametrize(("node", "fires"), [("launcher", False), ("sweeper", False), ("callbacks.x", True)])
def test_only_a_callback_of_hydra_may_be_anything(node, fires, mark):
    named = {"_target_": "os.symlink", "src": "x", "dst": str(mark)}
    options = [f"{'++' if fires or key != '_target_' else ''}hydra.{node}.{key}={text}" for key, text in named.items()]
    ended = run(mark.parent, "-m", "adapter.rank=0", *options)
    assert ended.returncode == 1
    assert os.path.lexists(mark) == fires
    assert fires or "os.symlink" in ended.stderr


def test_the_own_classes_of_logging_pass():
    own = {"class": "rich.logging.RichHandler", "formatter": "plain"}
    plain = {"()": "xlora_bench.system.escape.PlainFormatter"}
    config = {"version": 1, "formatters": {"plain": plain}, "handlers": {"x": own}}
    check_logging_config(config)
    check_logging_config({"version": 1, "filters": {"x": {"()": lambda: None}}})  # a program may call what it likes
