"""State, files and checkpoints: small, strict, and at home on another machine."""

import copy

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
