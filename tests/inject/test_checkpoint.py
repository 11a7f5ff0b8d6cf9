"""State, files and checkpoints: small, strict, and at home on another machine."""

import copy
import json

import lightning
import pytest
import torch
from safetensors import safe_open
from torch import nn

from tests.helpers.classifiers import perturb, roberta
from tests.helpers.named_adapters import QV, logits, refused, stacked, used
from tests.helpers.names import part
from tests.test_conformance import VARIANTS
from xlora_bench import inject
from xlora_bench.adapters import LoLDU, LoRA
from xlora_bench.adapters.decompositions.factorizations import LDU, ldu_along
from xlora_bench.inject.targets import Targets

pytestmark = pytest.mark.slow


def test_twelve_siblings_reload(tmp_path):
    net = nn.Sequential(*(nn.Linear(5, 5) for _ in range(12)))
    base = copy.deepcopy(net)
    inject.add_adapter(net, "a", LoRA(rank=2), targets=Targets(modules="all-linear"))
    perturb(inject.adapter_parameters(net, "a"))
    inject.save_adapter(net, "a", tmp_path / "a.safetensors")
    fresh = inject.load_adapter(base, tmp_path / "a.safetensors")
    x = torch.ones(3, 5)
    with inject.use_adapters(fresh, "a"), inject.use_adapters(net, "a"):
        assert torch.equal(fresh(x), net(x))
    fresh.load_state_dict(net.state_dict())


def test_strict_means_strict(tmp_path):
    net, path = stacked("mrpc"), tmp_path / "a.safetensors"
    inject.save_adapter(net, "mrpc", path)
    tensors, metadata = read(path)
    key = next(key for key in tensors if key.endswith("lora_A"))
    for damaged, message in (
        ({name: tensor for name, tensor in tensors.items() if name != key}, "missing"),
        (tensors | {"deltas/x/lora_A": torch.ones(2)}, "unexpected"),
        (tensors | {key: tensors[key][:, 1:].clone()}, "has shape"),
        (tensors | {"head/classifier/extra": torch.ones(1)}, "unexpected"),
    ):
        write(damaged, path, metadata)
        fresh = roberta(2)
        refused(fresh, lambda fresh=fresh: inject.load_adapter(fresh, path), message)
    state = inject.adapter_state_dict(net, "mrpc")
    state.popitem()
    refused(net, lambda: inject.load_adapter_state_dict(net, state, "mrpc"), "missing")


def read(path):
    with safe_open(path, framework="pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118


def write(tensors, path, metadata):
    from safetensors.torch import save_file

    save_file(tensors, path, metadata=metadata)


def test_damaged_foreign_and_misplaced_files_are_refused(tmp_path):
    net, path = stacked("mrpc"), tmp_path / "a.safetensors"
    inject.save_adapter(net, "mrpc", path)
    whole = path.read_bytes()
    small = nn.Sequential(nn.Linear(3, 3))
    refused(small, lambda: inject.load_adapter(small, path), "which this Sequential does not have")
    other = roberta(2, seed=9)
    refused(other, lambda: inject.load_adapter(other, path), "is not the one this adapter was trained on")
    inject.load_adapter(other, path, other_base=True)
    refused(net, lambda: inject.load_adapter(net, path), "already")
    path.write_bytes(whole[: len(whole) // 2])
    fresh = roberta(2)
    refused(fresh, lambda: inject.load_adapter(fresh, path), "cannot be read as an adapter file")
    write({"x": torch.ones(1)}, path, {"format": "pt"})
    refused(fresh, lambda: inject.load_adapter(fresh, path), "no adapter file of format 1")
    refused(fresh, lambda: inject.load_adapter(fresh, tmp_path / "nothing"), "cannot be read as an adapter file")


def changed(metadata, **changes):
    """Return the metadata of a file with other values; `modules__rank` stands for that of its first module."""
    content = json.loads(metadata["xlora_bench"])
    first = next(iter(content["modules"].values()))
    for key, value in changes.items():
        outer, _, inner = key.partition("__")
        (first if inner else content)[inner or outer] = value
    return metadata | {"xlora_bench": json.dumps(content)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"modules__scaling": float("nan")}, r"scaling` \(=nan\) must be a number"),
        ({"modules__scaling": "8"}, r"scaling` \(='8'\) must be a number"),
        ({"modules__rank": 10**7}, r"rank` \(=10000000\) is larger than every tensor"),
        ({"modules__rank": True}, r"rank` \(=True\) must be a whole number"),
        ({"modules__shape": [8]}, r"shape` \(=\[8\]\) must be a list of 2"),
        ({"modules__weight": None}, r"weight` \(=None\) must be a text"),
        ({"modules": []}, r"`modules` \(=\[\]\) must be a mapping"),
        ({"modules": {"roberta": 3}}, r"`modules.roberta` \(=3\) must be a mapping"),
        ({"heads": {"classifier": 10**9}}, r"`heads.classifier` \(=1000000000\) is the size of no tensor"),
        ({"heads": {"classifier": "2"}}, r"`heads` .* must be a mapping from a text to a whole number"),
        ({"name": None}, r"`name` \(=None\) must be a text"),
        ({"targets": None}, r"`targets` \(=None\) must be a mapping"),
        ({"adapter": {"class": "xlora_bench.LoRA", "options": {"rank": -1}}}, r"`adapter.rank` \(=-1\)"),
        ({"adapter": {"class": "xlora_bench.LoRA", "options": {"rang": 1}}}, "do not fit xlora_bench.LoRA"),
        ({"adapter": {"class": [1], "options": {}}}, "names the class"),
    ],
)
def test_broken_metadata_is_refused_before_anything_is_made(changes, message, tmp_path):
    net, path = stacked("mrpc"), tmp_path / "a.safetensors"
    inject.save_adapter(net, "mrpc", path)
    tensors, metadata = read(path)
    write(tensors, path, changed(metadata, **changes))
    fresh = roberta(2)
    refused(fresh, lambda: inject.load_adapter(fresh, path), message)


@pytest.mark.parametrize("text", ["[]", "null", "3", "{", "[" * 100_000])
def test_metadata_that_is_no_mapping_is_refused(text, tmp_path):
    path, fresh = tmp_path / "a.safetensors", roberta(2)
    write({"x": torch.ones(1)}, path, {"xlora_bench": text})
    refused(fresh, lambda: inject.load_adapter(fresh, path), "cannot be read as an adapter file")


def test_tensors_that_are_not_finite_or_of_another_kind_are_refused(tmp_path):
    net, path = inject.add_adapter(roberta(2), "a", LoLDU(rank=5), targets=QV), tmp_path / "a.safetensors"
    inject.save_adapter(net, "a", path)
    tensors, metadata = read(path)
    z, order = (next(key for key in tensors if key.endswith(f"/{end}")) for end in ("z", "permutation"))
    head = next(key for key in tensors if key.startswith("head/"))
    for key, tensor, message in (
        (z, torch.full_like(tensors[z], float("nan")), "not finite"),
        (head, torch.full_like(tensors[head], float("inf")), "not finite"),
        (z, torch.ones_like(tensors[z], dtype=torch.int32), "dtype torch.int32"),
        (z, torch.ones_like(tensors[z], dtype=torch.complex64), "dtype torch.complex64"),
        (order, tensors[order].float(), "dtype torch.float32"),
        (order, torch.zeros_like(tensors[order]), "no permutation"),
        (order, tensors[order] + 1, "no permutation"),
    ):
        write({**tensors, key: tensor}, path, metadata)
        fresh = roberta(2)
        refused(fresh, lambda fresh=fresh: inject.load_adapter(fresh, path), message)
    state = inject.adapter_state_dict(net, "a")
    key = next(key for key in state if key.endswith(".z"))
    for value, message in ((torch.full_like(state[key], float("nan")), "not finite"), (3, "must be a tensor")):
        broken = {**state, key: value}
        refused(net, lambda broken=broken: inject.load_adapter_state_dict(net, broken, "a"), message)


def test_nested_in_a_lightning_module_nothing_is_lost():
    outer, other = lightning.LightningModule(), lightning.LightningModule()
    outer.model, other.model = stacked("mrpc", "v1.0"), stacked("mrpc", "v1.0")
    for name in ("mrpc", "v1.0"):
        perturb(inject.adapter_parameters(other.model, name), seed=50)
    other.load_state_dict(outer.state_dict())
    for name in ("mrpc", "v1.0"):
        assert torch.equal(used(other.model, name), used(outer.model, name))


def test_plain_checkpoints_load_after_wrapping():
    net, plain = stacked("mrpc", "rte"), roberta(2, seed=5)
    state = plain.state_dict()
    missing, unexpected = net.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(".deltas." in key or ".heads." in key for key in missing)
    assert torch.equal(used(net), logits(plain))


def test_files_hold_the_adapter_and_nothing_else(tmp_path):
    net = stacked("lora", "ortho", "loldu")
    for name in ("lora", "ortho", "loldu"):
        inject.save_adapter(net, name, tmp_path / name)
        tensors, _ = read(tmp_path / name)
        kept = {
            f"deltas/{path}/{key}": v
            for path, d in inject.deltas(net, name).items()
            for key, v in d.state_dict().items()
        }
        kept |= {
            f"head/{path}/{key}": v for path, h in inject.heads(net, name).items() for key, v in h.state_dict().items()
        }
        assert {key: tuple(tensor.shape) for key, tensor in tensors.items()} == {
            k: tuple(v.shape) for k, v in kept.items()
        }
    sizes = [tensor.numel() for key, tensor in read(tmp_path / "loldu")[0].items() if key.startswith("deltas/")]
    assert max(sizes) == 16  # pivots (out,), z (r,), scaled z0 (r,) and sigma: no triangular factor


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_reloads_from_its_file_with_its_options(variant, tmp_path):
    adapter = part("adapter", variant, "adapter.rank=4", "adapter.alpha=12")
    net = inject.add_adapter(roberta(2), "a", adapter, targets=QV)
    perturb(inject.adapter_parameters(net, "a"))
    inject.save_adapter(net, "a", tmp_path / "a.safetensors")
    fresh = inject.load_adapter(roberta(2), tmp_path / "a.safetensors", name="b")
    assert torch.equal(used(fresh, "b"), used(net, "a"))
    origin = next(layer for _, layer in inject.adapted_layers(fresh)).adapter_configs["b"]
    assert origin.adapter == adapter
    assert origin.init_scheme == adapter.default_init()
    trained = sum(parameter.requires_grad for parameter in fresh.parameters())
    assert trained == sum(parameter.requires_grad for parameter in net.parameters())


@pytest.mark.parametrize("how", ["file", "state", "model"])
def test_loldu_reloads_where_another_lapack_pivots_otherwise(how, tmp_path, monkeypatch):
    net = inject.add_adapter(roberta(2), "a", LoLDU(rank=5, train_sigma=True), targets=QV)
    perturb(inject.adapter_parameters(net, "a"))
    inject.save_adapter(net, "a", tmp_path / "a.safetensors")

    def other_lapack(weight, *, rank):
        permutation, L, D, U = ldu_along(weight, torch.arange(len(weight)).flip(0))
        return LDU(permutation, L[:, :rank], D[:rank], U[:rank])

    monkeypatch.setattr("xlora_bench.adapters.loldu.ldu", other_lapack)
    fresh = roberta(2)
    if how == "file":
        inject.load_adapter(fresh, tmp_path / "a.safetensors")
    else:
        inject.add_adapter(fresh, "a", LoLDU(rank=5, train_sigma=True), targets=QV)
        assert not torch.allclose(used(fresh, "a"), used(net, "a"), atol=1e-3)
        if how == "state":
            inject.load_adapter_state_dict(fresh, inject.adapter_state_dict(net, "a"), "a")
            for place, head in inject.heads(net, "a").items():
                inject.heads(fresh, "a")[place].load_state_dict(head.state_dict())
        else:
            fresh.load_state_dict(net.state_dict())
    torch.testing.assert_close(used(fresh, "a"), used(net, "a"), rtol=1e-4, atol=1e-5)


def test_parameters_exist_and_sit_on_the_base_as_soon_as_the_adapter_is_added():
    net = stacked("mrpc", "rte", "cola")
    before = {name for name, _ in net.named_parameters()}
    for name in ("mrpc", "rte", "cola"):
        used(net, name)
    assert {name for name, _ in net.named_parameters()} == before


def test_files_name_no_code(tmp_path):
    net, path = stacked("mrpc"), tmp_path / "a.safetensors"
    inject.save_adapter(net, "mrpc", path)
    tensors, metadata = read(path)
    metadata["xlora_bench"] = metadata["xlora_bench"].replace("xlora_bench.LoRA", "os.system")
    write(tensors, path, metadata)
    fresh = roberta(2)
    refused(fresh, lambda: inject.load_adapter(fresh, path), "names the class 'os.system'; import its module first")
