"""Adapter files of version 0.1: classes by their private paths, initial factors as `up0` and `down0`."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.helpers.classifiers import perturb, roberta
from tests.helpers.named_adapters import QV, used
from tests.helpers.names import part
from tests.inject.test_checkpoint import read, write
from tests.test_conformance import VARIANTS
from xlora_bench import inject
from xlora_bench.adapters import LoRA
from xlora_bench.adapters.init_schemes import SVDInit
from xlora_bench.inject.adapter_options import RENAMED
from xlora_bench.inject.checkpoint import OLD_BUFFERS
from xlora_bench.inject.targets import Targets

FILE = Path(__file__).with_name("version_0_1.safetensors")
"""Written by commit 428bd44 from `plain()`: LoRA of rank 2 from singular vectors, its factors moved afterwards."""


def plain():
    """The net that `FILE` adapts."""
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    with torch.no_grad():
        for number, parameter in enumerate(net.parameters()):
            values = torch.arange(parameter.numel()).view(parameter.shape)
            parameter.copy_((values * (2 * number + 3) % 7 - 3) / 4)
    return net


def output(net):
    with inject.use_adapters(net, "a"):
        return net(torch.eye(3))


def test_a_file_written_before_is_read_and_computes_what_its_tensors_say():
    tensors, metadata = read(FILE)
    content = json.loads(metadata["xlora_bench"])
    assert content["adapter"]["class"] == "xlora_bench.adapters.lora.LoRA"
    assert content["init_scheme"]["class"] == "xlora_bench.init_schemes.svd.SingularVectors"
    assert {key.rpartition("/")[2] for key in tensors} == {"lora_A", "lora_B", "up0", "down0"}
    expected = torch.eye(3)
    for number, layer in enumerate(plain()):
        B, A, B0, A0 = (tensors[f"deltas/{number}/{key}"] for key in ("lora_B", "lora_A", "up0", "down0"))
        scaling = content["modules"][str(number)]["scaling"]
        expected = expected @ (layer.weight + scaling * (B @ A - B0 @ A0)).T + layer.bias
    torch.testing.assert_close(output(inject.load_adapter(plain(), FILE)), expected)


def test_the_same_adapter_saved_today_gives_the_same_output(tmp_path):
    net = inject.load_adapter(plain(), FILE)
    inject.save_adapter(net, "a", tmp_path / "a.safetensors")
    tensors, metadata = read(tmp_path / "a.safetensors")
    content = json.loads(metadata["xlora_bench"])
    assert content["adapter"]["class"] == "xlora_bench.LoRA"
    assert content["init_scheme"]["class"] == "xlora_bench.SVDInit"
    before, _ = read(FILE)
    assert {today(key): tensor.tolist() for key, tensor in before.items()} == {
        k: t.tolist() for k, t in tensors.items()
    }
    assert torch.equal(output(inject.load_adapter(plain(), tmp_path / "a.safetensors")), output(net))


def today(key):
    return key.replace("up0", "B0").replace("down0", "A0")


def as_before(path):
    """Rewrite a file of today as version 0.1 would have written it."""
    tensors, metadata = read(path)
    content = json.loads(metadata["xlora_bench"])
    names = {new: old for old, new in RENAMED.items()}
    for kind, module in (("adapter", "adapters.x"), ("init_scheme", "init_schemes.x"), ("targets", "targets")):
        last = content[kind]["class"].rpartition(".")[2]
        content[kind]["class"] = f"xlora_bench.{module}.{names.get(last, last)}"
    buffers = {new: old for old, new in OLD_BUFFERS.items()}
    renamed = {}
    for key, tensor in tensors.items():
        start, _, last = key.rpartition("/")
        renamed[f"{start}/{buffers.get(last, last)}"] = tensor
    write(renamed, path, metadata | {"xlora_bench": json.dumps(content)})
    return renamed.keys() - tensors.keys()


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_is_read(variant, tmp_path):
    net = inject.add_adapter(roberta(2), "a", part("adapter", variant), targets=QV)
    perturb(inject.adapter_parameters(net, "a"))
    inject.save_adapter(net, "a", tmp_path / "a")
    as_before(tmp_path / "a")
    assert torch.equal(used(inject.load_adapter(roberta(2), tmp_path / "a"), "a"), used(net, "a"))


def test_the_initial_factors_are_among_what_is_renamed(tmp_path):
    net = inject.add_adapter(plain(), "a", LoRA(rank=2), targets=Targets(modules="all-linear"), init_scheme=SVDInit())
    inject.save_adapter(net, "a", tmp_path / "a")
    assert {key.rpartition("/")[2] for key in as_before(tmp_path / "a")} == {"up0", "down0"}
