"""The seeds' defects that concern layers, each with the right behaviour.

S: emmanuelalo52/Lora-scratch, D: SKDDJ/LoLDU, T: TheDiscoMole/LoRA. More of them: T13 to T15 and tied weights in
`test_refusals.py`, S14 and T14 in `test_models.py`, S6 and S12 in `test_embedding.py` and `test_quantized.py`.
Those of adapters, names and files are beside the tests of these.
"""

import ast
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import xlora_bench
from tests.helpers.adapted import adapted, matrix, perturbed, seeded
from tests.helpers.names import part
from xlora_bench import inject
from xlora_bench.adapters import LoLDU
from xlora_bench.inject.targets import Targets

X = torch.randn(5, 6, generator=torch.Generator().manual_seed(1))
IDS = torch.tensor([[1, 3, 0], [9, 3, 1]])


def linear():
    return seeded(lambda: nn.Linear(6, 4))


def table():
    return seeded(lambda: nn.Embedding(10, 6))


def test_merge_and_unmerge_can_be_called():
    layer = perturbed(adapted(linear()))
    output = layer(X)
    inject.merge(layer)
    torch.testing.assert_close(layer(X), output)
    inject.unmerge(layer)
    assert torch.equal(layer(X), output)


@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("make", [linear, table])
def test_merged_weight_is_base_plus_scaled_product(make, rank):
    layer = perturbed(adapted(make(), rank=rank))
    delta = layer.deltas["default"]
    update = 6.0 / rank * (delta.lora_B @ delta.lora_A)
    expected = layer.weight + (update if make is linear else update.T)
    torch.testing.assert_close(layer.merged(), expected.detach())


def test_embedding_gathers_rows():
    layer = perturbed(adapted(table()))
    torch.testing.assert_close(layer(IDS), layer.weight[IDS] + matrix(layer).T[IDS])


def test_merged_embedding_returns_its_rows():
    layer = perturbed(adapted(table()))
    inject.merge(layer)
    assert layer(IDS).shape == (2, 3, 6)


def test_embedding_gathers_along_the_vocabulary():
    delta = adapted(table()).deltas["default"]
    assert delta.lora_A.shape == (2, 10)
    assert delta.lora_B.shape == (6, 2)


def test_base_is_frozen():
    layer = adapted(linear())
    assert {name for name, p in layer.named_parameters() if p.requires_grad} == {
        "deltas.default.lora_A",
        "deltas.default.lora_B",
    }


def test_a_plain_checkpoint_loads():
    base, layer = linear(), adapted(nn.Linear(6, 4))
    layer.load_state_dict(base.state_dict(), strict=False)
    assert torch.equal(layer(X), base(X))


def test_nothing_is_added_in_place():
    class Kept(nn.Linear):
        pass

    layer = perturbed(adapted(Kept(6, 4)))
    outputs = []
    layer.base_layer.register_forward_hook(lambda module, args, output: outputs.append(output))
    layer(X)
    assert torch.equal(outputs[0], F.linear(X, layer.weight, layer.bias))


def test_training_the_adapter_learns_what_the_frozen_base_cannot():
    layer, goal = adapted(linear()), X @ torch.randn(6, 4, generator=torch.Generator().manual_seed(2))
    optimizer = torch.optim.AdamW(inject.adapter_parameters(layer), lr=5e-2)
    losses = []
    for _ in range(50):
        optimizer.zero_grad()
        loss = (layer(X) - goal).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_a_singular_weight_gives_finite_factors():
    base = linear()
    with torch.no_grad():
        base.weight[2] = base.weight[1]
        base.weight[:, 0] = 0.0
    layer = perturbed(adapted(base, "loldu", rank=4))
    assert layer(X).isfinite().all()


@pytest.mark.parametrize("make", [linear, table])
def test_the_permutation_is_an_index(make):
    layer = adapted(make(), "loldu")
    out_features = layer.weight_matrix().shape[0]
    assert layer.deltas["default"].permutation.shape == (out_features,)
    assert not any(tensor.shape == (out_features, out_features) for tensor in layer.deltas.state_dict().values())


@pytest.mark.parametrize("options", [{"z_init": "ones"}, {"train_sigma": True}])
def test_options_reach_every_layer_type(options):
    for base in (linear(), table(), nn.Conv2d(3, 8, 2)):
        layer = inject.inject(base, LoLDU(rank=2, alpha=6.0, **options), targets=Targets(modules=[""]))
        delta = layer.deltas["default"]
        assert delta.sigma.requires_grad == options.get("train_sigma", False)
        assert torch.equal(delta.z, torch.ones(2)) == ("z_init" in options)


def test_conv2d_runs():
    layer = perturbed(adapted(seeded(lambda: nn.Conv2d(3, 8, 2)), "loldu"))
    assert layer(torch.randn(2, 3, 4, 4)).shape == (2, 8, 3, 3)


def test_the_library_needs_no_lightning():
    package = Path(xlora_bench.__file__).parent
    for path in [*package.glob("layers/*.py"), *package.glob("inject/*.py"), *package.glob("adapters/*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            imported = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            imported += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.startswith("lightning") for name in imported), path


def test_dropout_differs_from_row_to_row():
    layer = perturbed(adapted(linear(), dropout=0.5)).train()
    update = layer(X[:1].repeat(20, 1)) - layer.base_layer(X[:1])
    assert len(update.detach().unique(dim=0)) > 1


@pytest.mark.parametrize("make", [linear, table, lambda: nn.Conv2d(3, 8, 2)])
def test_the_start_leaves_the_output_and_alpha_scales(make):
    base = seeded(make)
    x = {nn.Linear: X, nn.Embedding: IDS}.get(type(base), torch.randn(2, 3, 4, 4))
    layer = adapted(base)
    assert torch.equal(layer(x), base(x))
    assert layer.deltas["default"].scaling == 6.0 / 2


def test_the_update_of_a_convolution_has_the_chosen_rank():
    layer = perturbed(adapted(nn.Conv2d(6, 8, 3), rank=2))
    update = (layer.merged() - layer.weight).detach().double()
    assert torch.linalg.matrix_rank(update.flatten(1), rtol=1e-4) == 2
    assert all(torch.linalg.matrix_rank(update[:, :, i, j], rtol=1e-4) <= 2 for i in range(3) for j in range(3))


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
def test_the_padding_mode_holds_for_the_update(mode):
    layer = perturbed(adapted(seeded(lambda: nn.Conv1d(3, 4, 3, padding=1, padding_mode=mode))))
    x = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(1))
    output = layer(x)
    inject.merge(layer)
    torch.testing.assert_close(layer(x), output, rtol=1e-4, atol=1e-5)


def test_no_updated_weight_is_kept_for_backward():
    layer, saved = perturbed(adapted(nn.Linear(64, 48))), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(tuple(t.shape)) or t, lambda t: t):
        layer(torch.randn(3, 64, requires_grad=True))
    own = [shape for shape in saved if set(shape) == {64, 48}]
    assert len(own) <= 1  # the frozen weight itself, for the gradient of the input


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_factors_are_where_the_base_is_and_the_output_has_its_dtype(dtype):
    layer = perturbed(adapted(linear().to(dtype)))
    assert layer(X.to(dtype)).dtype == dtype
    assert layer(X.to(dtype)).isfinite().all()
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    assert {parameter.dtype for parameter in layer.deltas.parameters()} == {wide}
    assert {parameter.device for parameter in layer.deltas.parameters()} == {layer.weight.device}


@pytest.mark.parametrize("modules", ["all-linear", [""]])
def test_a_layer_that_is_the_whole_model_is_adapted(modules):
    layer = inject.inject(linear(), part("adapter", "lora", "adapter.rank=2"), targets=Targets(modules=modules))
    assert torch.equal(layer(X), linear()(X))
    assert list(inject.deltas(layer)) == [""]
    layer = inject.add_adapter(
        layer, "second", part("adapter", "lora", "adapter.rank=2"), targets=Targets(modules=modules)
    )
    assert type(inject.remove(layer)) is nn.Linear


def test_code_that_reads_the_weight_or_sizes_of_an_adapted_layer_finds_them():
    layer = adapted(linear())
    assert layer.weight is layer.base_layer.weight
    assert layer.bias is layer.base_layer.bias
    assert (layer.in_features, adapted(table()).num_embeddings) == (6, 10)
    with pytest.raises(AttributeError, match="no attribute 'groups'"):
        _ = layer.groups
