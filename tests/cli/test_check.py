"""`xlora-bench check`: a variant of the user's own, outside this package, is proved, and what is broken is named."""

import os
import subprocess
import sys

import pytest
import torch

from tests.helpers.names import part
from xlora_bench.adapters.init_schemes import KaimingInit, SVDInit
from xlora_bench.cli.check import main
from xlora_bench.cli.composing import composing
from xlora_bench.training.conformance import (
    ALPHA,
    KINDS,
    PRECISIONS,
    RANK,
    BrokenPromiseError,
    check_variant,
    comparable,
)
from xlora_bench.training.conformance.broken_promise import require_equal

pytestmark = [pytest.mark.slow, pytest.mark.process]

YAML = "defaults: [_low_rank]\n\n_target_: {module}.Mine\n"
PYTHON = """
from dataclasses import dataclass

import torch
from torch import nn

from xlora_bench.adapters.lora import LoRA, LowRankDelta


class MineDelta(LowRankDelta):
    def __init__(self, initial, *, scaling, generator):
        super().__init__(initial, scaling=scaling)
        {init}

    {delta}


@dataclass(frozen=True, kw_only=True)
class Mine(LoRA):
    {adapter}

    def delta(self, weight, initial, *, scaling, generator):
        {build}
        return MineDelta(initial, scaling={scaling}, generator=generator)
"""
SOUND = {"init": "pass", "delta": "", "adapter": "extra: int = 0", "build": "pass", "scaling": "scaling"}
BROKEN = {  # what is wrong with LoRA then: the promise that fails, and what its line says
    "forgotten scaling": (
        {"scaling": "1.0"},
        "starts_as_the_base",
        "delta.scaling is 1 instead of 3, the scaling that `delta` was given",
    ),
    "count": (
        {"adapter": "def parameter_count(self, out, into, rank): return rank * (out + into) - 1"},
        "starts_as_the_base",
        "192 entries train, `parameter_count` says 191",
    ),
    "code that raises": (
        {"build": "raise RuntimeError('no idea')"},
        "is_built_or_refused_clearly",
        "is_built_or_refused_clearly: RuntimeError: no idea",
    ),
    "moves at step 0": (
        {"delta": "def factors(self): return self.lora_B + 0.1, self.lora_A"},
        "starts_as_the_base",
        "the output at step 0 is not the base's: 21 of 21 entries differ, the largest difference is ",
    ),
    "another formula": (
        {"delta": "def factors(self): return 2 * self.lora_B, self.lora_A"},
        "computes_the_dense_formula",
        "the layer does not compute with W + s (B A - B0 A0): ",
    ),
    "dense": (
        {"delta": "def current_factors(self): return (self.lora_B @ self.lora_A) @ self.lora_A.T, self.lora_A"},
        "forms_no_dense_update",
        "a tensor as large as the weight was computed: (24, 24)",
    ),
    "jump": (
        {"delta": "def post_optimizer_step(self, step): self.lora_B.data.mul_(2)"},
        "merges_and_comes_back",
        "`post_optimizer_step` changed the output: ",
    ),
    "merge": ({"delta": "def matrix(self): return 1.1 * super().matrix()"}, "is_removed_merged", "also: "),
    "unused parameter": (
        {
            "init": "self.unused = nn.Parameter(torch.ones(1))",
            "adapter": "def parameter_count(self, out, into, rank): return rank * (out + into) + 1",
        },
        "trains_what_it_declares",
        "`unused` got no gradient: `current_factors` does not use it",
    ),
    "no update": (
        {"delta": "def factors(self): return 0 * self.lora_B, self.lora_A"},
        "gives_the_base_back",
        "also: ",
    ),
    "lost in the state": (
        {
            "init": "self.gain = torch.rand(4, 1, generator=generator)",
            "delta": "def current_factors(self): return self.lora_B, self.gain * self.lora_A",
        },
        "saves_and_loads",
        "another output after the state was loaded: ",
    ),
    "lost in the file": (
        {
            "init": "self.first = initial.A.clone()",
            "delta": "def current_factors(self): return self.lora_B, self.lora_A + self.first",
        },
        "reloads_from_its_file",
        "also: ",
    ),
    "unclear refusal": (
        {"build": "raise ValueError('no')"},
        "is_built_or_refused_clearly",
        "no (at `body.target`) (refuse with `self.misfit(init_scheme, why)`)",
    ),
    "one layer type": (
        {"build": "if weight.shape == (24, 40): raise self.misfit(self.default_init(), 'x')"},
        "treats_all_layer_types_alike",
        "a linear layer takes this start, linear_wide does not",
    ),
    "any rank": (
        {"adapter": "def rank_of(self, weight, module_name=''): return self.rank"},
        "refuses_a_rank_above_the_full_rank",
        "`adapter.rank` (=25) is not refused with the limit min(out, in) (=24): it is taken",
    ),
}
"""`is_removed_merged`, `gives_the_base_back` and `reloads_from_its_file` are broken together with others."""


def written(folder, module, **changes):
    """Write a variant of the user: its class into `folder`, its YAML into `folder`/groups."""
    (folder / "groups" / "adapter").mkdir(parents=True)
    (folder / "groups" / "adapter" / "mine.yaml").write_text(YAML.format(module=module))
    (folder / f"{module}.py").write_text(PYTHON.format(**SOUND | changes))


@pytest.fixture
def checked(tmp_path, monkeypatch, capsys):
    """Check a variant in a working folder of its own; return the exit code and the lines."""

    def check(module, *arguments, **changes):
        written(tmp_path, module, **changes)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "path", list(sys.path))
        code = main(["adapter=mine", "--config-dir", "groups", *arguments])
        return code, capsys.readouterr().out.splitlines()

    return check


def test_a_variant_in_the_working_folder_as_with_an_installed_program(tmp_path):
    written(tmp_path, "own_variant_of_a_user")
    command = ["-m", "xlora_bench", "check", "adapter=mine", "--config-dir", "groups", "init_scheme=svd_left"]
    done = subprocess.run(
        [sys.executable, "-P", *command],  # -P: the working folder is not on the path, as in a console script
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *cases, last = done.stdout.splitlines()
    expected = [*((kind, "fp32") for kind in KINDS), *(("linear", name) for name in PRECISIONS if name != "fp32")]
    assert [tuple(line.split()) for line in cases] == [("ok", "svd_left", *case) for case in expected]
    assert last == "14 ok, 0 refused, 0 FAILED"
    assert {path.name for path in tmp_path.iterdir()} <= {"groups", "own_variant_of_a_user.py", "__pycache__"}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_promise_is_named_with_the_numbers(name, checked):
    changes, promise, text = BROKEN[name]
    code, lines = checked(f"broken_by_{name.replace(' ', '_')}", "init_scheme=kaiming", **changes)
    assert code == 1
    failed = [line for line in lines if line.startswith("FAILED") and promise in line]
    assert failed, lines
    assert text in failed[0]
    assert lines[-1].endswith(" FAILED")
    assert not lines[-1].endswith(" 0 FAILED")


def test_every_start_is_tried_and_a_refusal_has_its_reason(checked, monkeypatch):
    monkeypatch.setattr("xlora_bench.cli.composing.Composer.choices", lambda *_: ["gaussian", "zero"])
    code, lines = checked("mine_with_all_starts")
    assert code == 0
    assert lines[-1] == "14 ok, 14 refused, 0 FAILED"
    (line,) = [line for line in lines if line.split()[:4] == ["refused", "zero", "conv2d", "fp32"]]
    assert "with both factors at zero neither gets a gradient; init schemes that fit: " in line


def test_starts_of_the_user_are_among_them(tmp_path):
    (tmp_path / "init_scheme").mkdir()
    (tmp_path / "init_scheme" / "signs.yaml").write_text("_target_: xlora_bench.ZeroInit\n")
    with composing(tmp_path) as composer:
        assert "signs" in composer.choices("init_scheme")
        assert "kaiming" in composer.choices("init_scheme")
        assert not [name for name in composer.choices("adapter") if name.startswith("_")]


def test_all_refused_is_not_a_success(checked):
    code, lines = checked("mine_refused", "init_scheme=zero")
    assert code == 1
    assert lines[-1] == "0 ok, 14 refused, 0 FAILED"


def test_the_start_of_the_yaml_must_suit():
    adapter = part("adapter", "lora_xs", f"adapter.rank={RANK}")
    (outcome,) = check_variant(adapter, {}, default=KaimingInit())
    assert "the YAML brings a start that the variant refuses: `init_scheme` (=kaiming) does not fit" in outcome.line()
    assert not list(check_variant(adapter, {}, default=SVDInit(sigma="left")))


def test_options_that_are_not_the_variants_own_are_left_out():
    adapter = part("adapter", "lora", "adapter.rank=9", "adapter.dropout=0.5", "adapter.bias=all")
    plain = comparable(adapter)
    assert (plain.rank, plain.alpha, plain.dropout, plain.bias) == (RANK, ALPHA, 0.0, "none")
    assert comparable(adapter, keep=("rank",)).rank == 9


@pytest.mark.parametrize("adapter", ["full", "peft_ia3"])
def test_only_native_variants_can_be_checked(adapter, capsys):
    with pytest.raises(SystemExit) as stop:
        main([f"adapter={adapter}"])
    assert stop.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "check is for native variants" in line


def test_a_config_folder_that_is_none(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["adapter=lora", "--config-dir", str(tmp_path / "nothing")])
    assert "is no folder" in capsys.readouterr().err


def test_tensors_of_other_shapes_or_dtypes_are_told_apart():
    with pytest.raises(BrokenPromiseError, match=r"^x: torch.float64 \(2,\) instead of torch.float32 \(3,\)$"):
        require_equal(torch.ones(2).double(), torch.ones(3), "x")
