"""Typed options: every key of every choice of every group, with values of a wrong type or outside its range."""

import copy
import math

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from tests.helpers.names import CONF, choices
from xlora_bench.training.loggers import run_logs
from xlora_bench.training.options import GROUPS, KEYS, check_config, check_group, top_level_faults

WRONG = {
    bool: ["yes", 2, [], {"a": 1}],
    int: ["8x", 1.5, True, [1], {"a": 1}, -1],
    float: ["abc", True, [0.1], {"a": 1}, math.inf, math.nan, -1.0],
    str: [5, True, ["x"], {"a": 1}],
    type(None): [{"a": 1}],
    list: [5, True, {"a": 1}],
    dict: [5, True, [1], "x"],
}
"""By the type of a key's value in `conf/`: values that it cannot have."""
FINE = [
    ("adapter.d_initial", -1.0),  # may be negative
    ("targets.modules", "x"),  # a regular expression
    ("targets.modules", ["x"]),  # names
    ("callbacks.early_stopping.patience", -1),  # as 0
    *[(key, value) for key in ("paper", "tuning") for value in ({"a": 1},)],  # checked by sweeps
    *[("grid", value) for value in (5, True, {"a": 1})],  # checked by sweeps
]
NUMBERS = {"adapter.alpha", "adapter.lr_ratio", "trainer.gradient_clip_val"}
"""Numbers that a YAML file writes without a point."""
CASES = [(group, choice) for group in (*GROUPS, "callbacks") for choice in choices(group)]
counted = []


@pytest.fixture(scope="module")
def composed():
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield lambda *overrides: OmegaConf.to_container(compose("config", list(overrides)), resolve=True)


def leaves(node, path=()):
    for key, value in node.items():
        if isinstance(value, dict) and value and key not in {"options", "architectures"}:
            yield from leaves(value, (*path, key))
        elif key != "_target_":
            yield (*path, key), value


def changed(config, path, value):
    config = copy.deepcopy(config)
    node = config
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    return config


def is_fine(name, value):
    return any(name == key and type(value) is type(other) and value == other for key, other in FINE)


def refused(faults, name, value):
    """Assert that there is a line for this key which shows the value."""
    assert faults, (name, value)
    assert all("\n" not in line and len(line) < 1200 for line in faults)
    assert any(f"`{name}` (={value!r})" in line for line in faults), (name, value, faults)
    counted.append(name)


@pytest.mark.parametrize(("group", "choice"), CASES)
def test_a_wrong_value_of_any_key_is_named(group, choice, composed, monkeypatch):
    monkeypatch.setattr(run_logs, "is_installed", lambda package: True)
    config = composed(f"{group}={choice}")
    assert check_config(config)[1] == []
    before = len(counted)
    for path, value in leaves(config[group], (group,)):
        name = ".".join(path)
        kind = float if name in NUMBERS else type(value)
        for wrong in WRONG[kind]:
            if not is_fine(name, wrong):
                refused(check_group(group, changed(config, path, wrong)[group])[1], name, wrong)
    refused(check_group(group, {**config[group], "bogus": 1})[1], f"{group}.bogus", 1)
    assert len(counted) > before


def test_wrong_values_of_the_other_keys(composed):
    config = composed()
    rest = {key: value for key, value in config.items() if key not in GROUPS}
    for path, value in leaves(rest):
        name = ".".join(path)
        for wrong in WRONG[type(value)]:
            if not is_fine(name, wrong):
                refused(top_level_faults(changed(config, path, wrong)), name, wrong)


def test_all_faults_are_reported_together(composed):
    config = composed("adapter.rank=0", "task.batch_size=0", "optimizer.lr=abc", "seed=-1")
    faults = check_config(config)[1]
    assert [line.partition("`")[2].partition("`")[0] for line in faults] == [
        *("seed", "adapter.rank", "task.batch_size", "optimizer.lr")
    ]


@pytest.mark.parametrize(
    "key", sorted(KEYS - {"start_from", "rerun", "budget", "sweep", "grid", "tuning", "paper", "callbacks"})
)
def test_a_missing_key_is_named(key, composed):
    config = composed()
    del config[key]
    assert [line.partition(" ")[0] for line in check_config(config)[1]] == [f"`{key}`"]


def test_a_key_that_nothing_reads_has_near_names(composed):
    faults = check_config(composed() | {"optimiser": 1})[1]
    assert faults == ["`optimiser` is not a key of the config; did you mean optimizer?"]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("xlora_bench.adapters.lora.LoRA", "is a private path: write xlora_bench.LoRA"),
        ("xlora_bench.Lora", "names no class that can be imported"),
        ("nowhere.Mine", "names no class that can be imported"),
    ],
)
def test_a_class_that_is_none_of_the_public_ones(target, message, composed):
    config = composed()
    config["adapter"]["_target_"] = target
    (line,) = check_config(config)[1]
    assert line.startswith(f"`adapter._target_` (={target!r}) ")
    assert message in line


def test_options_of_a_users_class_are_checked_by_its_signature(composed, tmp_path, monkeypatch):
    (tmp_path / "mine_for_options.py").write_text(
        "from torch.optim import Optimizer\n\n\nclass Mine(Optimizer):\n"
        "    def __init__(self, params, *, lr: float, steps: int = 1):\n        pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    config = composed()
    config["optimizer"] = {"_target_": "mine_for_options.Mine", "steps": "x", "rate": 1}
    assert check_config(config)[1] == [
        "`optimizer.rate` (=1) is not an option of mine_for_options.Mine, which has head_lr, lr, steps; "
        "remove ~optimizer.rate",
        "`optimizer.steps` (='x') must be a whole number",
        "`optimizer.lr` is missing: it must be a number above 0",
    ]
