"""What must not be adapted is refused with the reason and the way out; a user's own type is one class away."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import weight_norm as old_weight_norm
from torch.nn.utils.parametrizations import spectral_norm, weight_norm
from torch.nn.utils.prune import random_unstructured
from transformers import GPT2Config, GPT2LMHeadModel

from tests.helpers.adapted import adapted, perturbed
from tests.helpers.names import part
from xlora_bench import inject
from xlora_bench.adapters import LoRA
from xlora_bench.inject.targets import Targets
from xlora_bench.nn.layers import AdaptedLinear, adapted_type, adapts
from xlora_bench.nn.layers.base import REGISTRY, AdaptedLayer

LORA = part("adapter", "lora", "adapter.rank=2")


@pytest.fixture
def registry(monkeypatch):
    """Undo what a test registers."""
    for key, value in dict(REGISTRY).items():
        monkeypatch.setitem(REGISTRY, key, value)
    before = set(REGISTRY)
    yield
    for key in set(REGISTRY) - before:
        del REGISTRY[key]


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.fc = nn.Linear(8, 8)

    def forward(self, x):
        return self.fc(self.attention(x, x, x)[0])


@pytest.mark.parametrize("modules", [["attention"], ["out_proj"], ["fc", "out_proj"], "all-linear", ".*out_proj"])
def test_multihead_attention_is_refused_by_name(modules):
    model = Attention()
    with pytest.raises(ValueError, match=r"`attention.*since nn.MultiheadAttention .* four nn.Linear"):
        inject.inject(model, LORA, targets=Targets(modules=modules))
    assert not list(inject.adapted_layers(model))
    inject.inject(model, LORA, targets=Targets(modules=["fc"]))


def test_encoder_layers_are_refused_while_their_fast_path_is_on():
    model = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    x, targets = torch.randn(2, 3, 8), Targets(modules=["linear1"])
    with pytest.raises(ValueError, match=r"`linear1` .* fast path .*set_fastpath_enabled\(False\)"):
        inject.inject(model, LORA, targets=targets)
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad():
            before = model(x)
            assert not torch.equal(perturbed(inject.inject(model, LORA, targets=targets))(x), before)
    finally:
        torch.backends.mha.set_fastpath_enabled(True)


def gpt2(**options):
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=20, n_positions=8, n_embd=8, n_layer=1, n_head=2, **options)).eval()


def test_tied_weights_are_refused_until_they_are_untied():
    model = gpt2()
    with pytest.raises(ValueError, match=r"`transformer.wte` .* shares its weight with `lm_head`.*untie"):
        inject.inject(model, LORA, targets=Targets(modules=["wte"]))
    model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().clone())
    inject.inject(model, LORA, targets=Targets(modules=["wte"]))
    ids = torch.tensor([[1, 2, 3]])
    head = model.lm_head.weight.clone()
    expected = perturbed(model)(ids).logits
    torch.testing.assert_close(inject.remove(model, merged=True)(ids).logits, expected)
    assert torch.equal(model.lm_head.weight, head)


def test_tied_layers_of_one_type_are_refused_too():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    with pytest.raises(ValueError, match="`0` cannot be adapted since it shares its weight with `1`"):
        inject.inject(model, LORA, targets=Targets(modules="all-linear"))


def test_a_module_used_in_two_places_is_adapted_once():
    shared = nn.Linear(4, 4)
    model = nn.ModuleDict({"a": shared, "b": nn.Sequential(shared)})
    inject.inject(model, LORA, targets=Targets(modules="all-linear"))
    assert model["a"] is model["b"][0]
    assert len(inject.deltas(model)) == 1
    plain = inject.remove(model)
    assert plain["a"] is plain["b"][0] is shared


class Doubled(nn.Linear):
    def forward(self, x):
        return 2.0 * super().forward(x)


def test_a_subclass_with_its_own_forward_is_refused_until_it_is_registered(registry):
    model = nn.Sequential(Doubled(4, 4))
    with pytest.raises(ValueError, match=r"a Doubled .* forward of its own, .* adapts\(Doubled\)"):
        inject.inject(model, LORA, targets=Targets(modules=["0"]))
    adapts(Doubled)(AdaptedLinear)
    assert isinstance(inject.inject(model, LORA, targets=Targets(modules=["0"]))[0], AdaptedLinear)


def test_a_type_without_an_adapted_layer_is_refused():
    with pytest.raises(ValueError, match=r"`1`, a LayerNorm that cannot be adapted since .* @adapts\(LayerNorm\)"):
        inject.inject(nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)), LORA, targets=Targets(modules=["1"]))


def test_an_own_layer_type_is_one_class(registry):
    class Cosine(nn.Module):
        """`y = (W / |W|) x`, rows of unit length."""

        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(6, 4))

        def forward(self, x: Tensor) -> Tensor:
            return F.linear(x, F.normalize(self.weight, dim=1))

    @adapts(Cosine)
    class AdaptedCosine(AdaptedLinear):
        """The update is on the normalised weight."""

        def weight_matrix(self) -> Tensor:
            return F.normalize(self.weight, dim=1)

        def merged_output(self, x: Tensor, weight: Tensor) -> Tensor:
            return F.linear(x, weight)

    x = torch.randn(3, 4)
    layer = perturbed(adapted(Cosine(), scheme="svd_left"))
    assert type(layer) is AdaptedCosine
    output = layer(x)
    inject.merge(layer)
    torch.testing.assert_close(layer(x), output)


def test_the_most_specific_registered_class_wins(registry):
    class Special(nn.Linear):
        pass

    class AdaptedSpecial(AdaptedLinear):
        pass

    class AdapterDict(Special):
        pass

    assert adapted_type(Special(2, 2)) is AdaptedLinear
    adapts(Special)(AdaptedSpecial)
    assert adapted_type(Special(2, 2)) is adapted_type(AdapterDict(2, 2)) is AdaptedSpecial
    assert adapted_type(nn.Linear(2, 2)) is AdaptedLinear
    adapts(f"{AdapterDict.__module__}.{AdapterDict.__qualname__}")(AdaptedLinear)
    assert adapted_type(AdapterDict(2, 2)) is AdaptedLinear


@pytest.mark.parametrize(
    "norm", [weight_norm, spectral_norm, old_weight_norm, partial(random_unstructured, amount=0.5)]
)
def test_a_computed_weight_is_refused_by_name(norm):
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    norm(model[0], name="weight")
    with pytest.raises(ValueError, match=r"its weight is computed in each forward .* make it a plain one first"):
        inject.add_adapter(model, "a", LoRA(rank=2), targets=Targets(modules=["0"]))
    inject.add_adapter(model, "a", LoRA(rank=2), targets=Targets(modules=["1"]))


def test_a_class_that_is_no_adapted_layer_is_refused_when_it_is_registered(registry):
    with pytest.raises(TypeError, match=r"`Wrapper` must be an AdaptedLayer .* derived from another class"):
        adapts(nn.Linear)(type("Wrapper", (nn.Module,), {}))
    with pytest.raises(TypeError, match=r"`Half` must be an AdaptedLayer .* it lacks apply_delta, as_weight, weight_m"):
        adapts(nn.Linear)(type("Half", (AdaptedLayer,), {}))


def test_modules_inside_a_registered_type_are_not_adapted_by_themselves(registry):
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4, 4))
            self.inner = nn.Linear(4, 4)

        def forward(self, x):
            return self.inner(x @ self.weight.T)

    received = []

    @adapts(Block)
    class AdaptedBlock(AdaptedLinear):
        def __init__(self, base_layer):
            super().__init__(base_layer)
            received.append(base_layer)

        def plain_forwards(self):
            return ()

    model = nn.Sequential(Block(), nn.Linear(4, 2))
    block = model[0]
    inject.add_adapter(model, "a", LoRA(rank=2), targets=Targets(modules=".*"))
    assert received == [block]
    assert [name for name, _ in inject.adapted_layers(model)] == ["0", "1"]
