"""Each adapter x init scheme x layer type keeps the promises of a variant or is refused with the init schemes that fit.

The pairs come from the YAML files: a new variant or start is tested the day its file appears. A new layer type is one
line in `xlora_bench/training/conformance/layer_kinds.py`. One test is one case; it goes through all promises, each on a
model of its own. The promises are in `xlora_bench/training/conformance/`; `xlora-bench check` goes through them too.
"""

import dataclasses
import itertools
import math
import os
from functools import cache

import pytest
import torch
from hydra.utils import instantiate

from tests.helpers.names import choices, configured, part
from tests.helpers.nets import TARGETS, Net
from xlora_bench import inject
from xlora_bench.adapters import Adapter
from xlora_bench.inject.methods import as_method
from xlora_bench.training import conformance
from xlora_bench.training.conformance import ALPHA, KINDS, PROMISES, RANK, Case
from xlora_bench.training.conformance.check import (
    OTHER_PRECISIONS,
    REFUSED,
    SQUARE,
    brings_an_init_scheme_that_suits,
    refuses_a_rank_above_the_full_rank,
    treats_all_layer_types_alike,
)
from xlora_bench.training.conformance.promises import reloads_from_its_file

SPECS = {
    "asymmetric_middle": "A_V_B_U_hE_I",
    "asymmetric_all": "hA_rand_hB_rand_hE_rand",
    "asymmetric_ends": "hA_V_hB_U_E_I",
    "asymmetric_A": "hA_he_B_U",
}
"""Variants beside those of the YAML files: forms of `asymmetric` that compute with a middle factor or another one."""


def variant(name):
    if name in SPECS:
        return dataclasses.replace(variant("asymmetric"), spec=SPECS[name])
    return part("adapter", name, f"adapter.rank={RANK}", f"adapter.alpha={ALPHA}")


VARIANTS = [name for name in choices("adapter") if isinstance(part("adapter", name), Adapter)]
DISTINCT = [  # not pissa, olora, ...: lora with another start, and every start is crossed with lora already
    name for number, name in enumerate(VARIANTS) if not any(variant(name) == variant(o) for o in VARIANTS[:number])
]
PAIRS = [*itertools.product(DISTINCT, choices("init_scheme")), *((name, "builtin") for name in SPECS)]
CASES = [(*pair, kind, "fp32") for pair in PAIRS for kind in KINDS]
CASES += [
    (*pair, kind, precision)
    for pair in PAIRS
    for precision in OTHER_PRECISIONS
    for kind in (KINDS if os.environ.get("XLORA_BENCH_FULL") else ["linear"])
]
ON_GPU = CASES if torch.cuda.is_available() else CASES[:1]


@cache
def rejection(adapter, scheme, kind, precision="fp32", device="cpu"):
    return conformance.rejection(variant(adapter), part("init_scheme", scheme), kind, precision, device=device)


def check(adapter, scheme, kind, precision, *, device):
    refused = rejection(adapter, scheme, kind, precision, device)
    if refused is not None:
        assert REFUSED.search(refused)
        return
    for promise in (*PROMISES, *([] if kind != "linear" else [reloads_from_its_file])):
        promise(Case(variant(adapter), part("init_scheme", scheme), kind, precision, device=device))


@pytest.mark.parametrize(("adapter", "scheme", "kind", "precision"), CASES)
def test_case(adapter, scheme, kind, precision):
    check(adapter, scheme, kind, precision, device="cpu")


@pytest.mark.gpu
@pytest.mark.parametrize(("adapter", "scheme", "kind", "precision"), ON_GPU)
def test_case_on_a_gpu(adapter, scheme, kind, precision):
    check(adapter, scheme, kind, precision, device="cuda")


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_every_layer_type_takes_what_a_linear_layer_takes(pair):
    reasons = {kind: rejection(*pair, kind) for kind in KINDS}
    treats_all_layer_types_alike(reasons)
    assert pair[0] == "cholesky" or not any(SQUARE in (reason or "") for reason in reasons.values())


@pytest.mark.parametrize("scheme", choices("init_scheme"))
def test_every_start_fits_some_variant_or_says_why_it_fits_none(scheme):
    assert scheme == "zero" or any(rejection(name, scheme, "linear") is None for name in VARIANTS)


@pytest.mark.parametrize("adapter", VARIANTS)
def test_every_variant_has_a_start_that_fits(adapter):
    assert any(rejection(adapter, scheme, "linear") is None for scheme in choices("init_scheme"))


@pytest.mark.parametrize("adapter", VARIANTS)
def test_rank_above_the_full_rank_is_refused_by_name(adapter):
    if not variant(adapter).rank_limited:
        pytest.skip("takes any rank")
    refuses_a_rank_above_the_full_rank(part("adapter", adapter))


@pytest.mark.parametrize("adapter", VARIANTS)
def test_yaml_brings_a_start_that_fits(adapter):
    brings_an_init_scheme_that_suits(variant(adapter), instantiate(configured(f"adapter={adapter}").init_scheme))


@pytest.mark.parametrize("adapter", VARIANTS)
def test_yaml_of_the_class_brings_the_same_start_as_the_class(adapter):
    if type(part("adapter", adapter)).__name__.lower() == adapter.replace("_", ""):  # not pissa: lora by another name
        chosen = configured(f"adapter={adapter}").init_scheme
        assert instantiate(chosen) == part("adapter", adapter).default_init()


def test_rank_stabilised_scaling():
    method = part("adapter", "lora", "adapter.rank=4", "adapter.alpha=12", "adapter.use_rslora=true")
    net = as_method(method).apply(
        Net(24, 24), targets=TARGETS, init_scheme=method.default_init(), seed=0, total_steps=1
    )
    assert inject.deltas(net)["body.target"].scaling == 12 / math.sqrt(4)
