"""A module with several weights that a constructor of the user replaces as a whole."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from tests.helpers.adapted import perturbed
from tests.helpers.classifiers import perturb
from xlora_bench import KaimingInit, export_peft, import_peft, inject
from xlora_bench.adapters import DoRA, LoRA, VeRA
from xlora_bench.inject.methods.native import NativeMethod
from xlora_bench.inject.targets import Targets
from xlora_bench.nn.layers import AdaptedLinear, replaces
from xlora_bench.nn.layers.base import REGISTRY
from xlora_bench.training.budget.costs import adapter_flops
from xlora_bench.training.budget.target_shapes import target_modules_of

MLP = Targets(modules=["mlp"])


class FusedMLP(nn.Module):
    """`y = D (silu(G x) * U x)` with G and U in one weight."""

    def __init__(self):
        super().__init__()
        self.fused, self.down = nn.Linear(4, 12), nn.Linear(6, 4)

    def forward(self, x):
        gate, value = self.fused(x).chunk(2, dim=-1)
        return self.down(F.silu(gate) * value)


class AdaptedRows(AdaptedLinear):
    """Some rows of a linear layer."""

    def __init__(self, base_layer, rows):
        super().__init__(base_layer)
        self.rows = rows

    @property
    def bias(self):
        return self.base_layer.bias[self.rows]

    def weight_matrix(self):
        return self.dense_weight()[self.rows]

    def base_output(self, x):
        return F.linear(x, self.weight_matrix(), self.bias)

    def merged_output(self, x, weight):
        return F.linear(x, weight, self.bias)

    def with_weight(self, weight):
        whole = self.weight.clone()
        whole[self.rows] = weight
        return super().with_weight(whole.detach())


class AdaptedFusedMLP(nn.Module):
    """Three updates, one each of G, U and D."""

    def __init__(self, base):
        super().__init__()
        self.gate, self.value = AdaptedRows(base.fused, slice(0, 6)), AdaptedRows(base.fused, slice(6, 12))
        self.down = AdaptedLinear(base.down)

    def forward(self, x):
        return self.down(F.silu(self.gate(x)) * self.value(x))


class Gates(AdaptedLinear):
    """One of the two weights of an LSTM cell."""

    def __init__(self, base_layer, kind):
        super().__init__(base_layer)
        self.kind = kind

    @property
    def weight(self):
        return getattr(self.base_layer, f"weight_{self.kind}")

    @property
    def bias(self):
        return getattr(self.base_layer, f"bias_{self.kind}")

    def base_output(self, x):
        return F.linear(x, self.weight, self.bias)

    def merged_output(self, x, weight):
        return F.linear(x, weight, self.bias)

    def with_weight(self, weight):
        setattr(self.base_layer, f"weight_{self.kind}", nn.Parameter(weight, requires_grad=False))
        return self.base_layer


class AdaptedLSTMCell(nn.Module):
    def __init__(self, base):
        super().__init__()
        self.ih, self.hh = Gates(base, "ih"), Gates(base, "hh")

    def forward(self, x, state):
        i, f, g, o = (self.ih(x) + self.hh(state[0])).chunk(4, dim=-1)
        memory = f.sigmoid() * state[1] + i.sigmoid() * g.tanh()
        return o.sigmoid() * memory.tanh(), memory


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.mlp, self.out = nn.LSTMCell(4, 4), FusedMLP(), nn.Linear(4, 2)

    def forward(self, x):
        return self.out(self.mlp(self.cell(x, (x, x))[0]))


BOTH = Targets(modules=["cell", "mlp", "out"])
PATHS = ["cell.adapted.ih", "cell.adapted.hh", "mlp.adapted.gate", "mlp.adapted.value", "mlp.adapted.down", "out"]


@pytest.fixture(autouse=True)
def _registered():
    before = dict(REGISTRY)
    replaces(FusedMLP)(AdaptedFusedMLP)
    replaces("torch.nn.modules.rnn.LSTMCell")(AdaptedLSTMCell)
    yield
    REGISTRY.clear()
    REGISTRY.update(before)


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net().eval()


X = torch.arange(12.0).view(3, 4) / 12


def same_state(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("adapter", [LoRA(rank=2), DoRA(rank=2), VeRA(rank=2)], ids=lambda one: one.name)
def test_every_weight_of_it_gets_an_update(net, adapter):
    plain = copy.deepcopy(net)
    before = net(X)
    inject.inject(net, adapter, targets=BOTH)
    torch.testing.assert_close(net(X), before)
    assert list(inject.deltas(net)) == PATHS
    count = NativeMethod(adapter=adapter).closed_form(net)
    assert inject.parameter_count(net) == count == sum(p.numel() for p in net.parameters() if p.requires_grad)
    changed = perturbed(net)(X)
    assert not torch.allclose(changed, before)
    inject.disable(net)
    assert torch.equal(net(X), before)
    inject.enable(net)
    assert torch.equal(net(X), changed)
    inject.merge(net)
    torch.testing.assert_close(net(X), changed)
    inject.unmerge(net)
    assert torch.equal(net(X), changed)
    assert same_state(inject.base_state_dict(net), plain.state_dict())
    removed = inject.remove(copy.deepcopy(net))
    assert [type(module) for module in removed.modules()] == [type(module) for module in plain.modules()]
    assert torch.equal(removed(X), before)
    merged = inject.remove(net, merged=True)
    assert merged.state_dict().keys() == plain.state_dict().keys()
    torch.testing.assert_close(merged(X), changed)
    plain.load_state_dict(merged.state_dict())
    torch.testing.assert_close(plain(X), changed)


def test_it_may_be_the_whole_model_and_rows_may_be_routed():
    torch.manual_seed(0)
    net = FusedMLP().eval()
    plain = net.state_dict()
    for name in "ab":
        net = inject.add_adapter(net, name, LoRA(rank=2), targets=Targets(modules=[""]))
        perturb(inject.adapter_parameters(net, name))
    alone = []
    for row, name in enumerate(["b", None, "a"]):
        with inject.use_adapters(net, [name] if name else []):
            alone.append(net(X)[row])
    with inject.route(net, ["b", None, "a"]):
        torch.testing.assert_close(net(X), torch.stack(alone))
    net.load_state_dict(plain, strict=False)
    inject.rename_adapter(net, "a", "c")
    net = inject.remove_adapter(net, "b")
    assert inject.adapter_names(net) == ["c"]
    net = inject.remove_adapter(net, "c")
    assert type(net) is FusedMLP
    assert same_state(net.state_dict(), plain)


def test_a_saved_adapter_loads_into_the_plain_model(net, tmp_path):
    plain = copy.deepcopy(net)
    inject.add_adapter(net, "a", LoRA(rank=2), targets=BOTH)
    perturb(inject.adapter_parameters(net, "a"))
    inject.save_adapter(net, "a", tmp_path / "a.safetensors")
    inject.load_adapter(plain, tmp_path / "a.safetensors")
    with inject.use_adapters(net, "a"), inject.use_adapters(plain, "a"):
        assert torch.equal(net(X), plain(X))
    state = inject.adapter_state_dict(net, "a")
    inject.load_adapter_state_dict(plain, state, "a")
    plain.load_state_dict(net.state_dict())
    inject.load_adapter(net, tmp_path / "a.safetensors", name="b")
    assert inject.adapter_names(net) == ["a", "b"]
    other = Net()
    with pytest.raises(ValueError, match=r"the frozen weight at `cell.adapted.ih` is not the one"):
        inject.load_adapter(other, tmp_path / "a.safetensors")
    assert type(other.cell) is nn.LSTMCell


def test_only_its_updates_train_and_its_shapes_are_known_before(net):
    targets = target_modules_of(net, BOTH)
    assert [(one.module_name, one.out_features, one.in_features) for one in targets] == [
        *((path, 16, 4) for path in PATHS[:2]),
        *((path, 6, 4) for path in PATHS[2:4]),
        (PATHS[4], 4, 6),
        (PATHS[5], 2, 4),
    ]
    assert type(net.mlp) is FusedMLP
    inject.inject(net, LoRA(rank=2), targets=MLP)
    net(X).sum().backward()
    trained = [name for name, parameter in net.named_parameters() if parameter.grad is not None]
    assert trained
    assert all(".deltas." in name for name in trained)


def test_what_is_inside_is_no_target_of_its_own(net):
    with pytest.raises(ValueError, match=r"`targets.modules` entry 'down' matches `mlp.down`"):
        inject.inject(net, LoRA(rank=2), targets=Targets(modules=["down"]))
    inject.inject(net, LoRA(rank=2), targets=MLP)
    with pytest.raises(ValueError, match=r"`targets.modules` entry 'gate' matches"):
        inject.add_adapter(net, "b", LoRA(rank=2), targets=Targets(modules=["gate"]))


def test_an_error_changes_nothing(net):
    before = list(net.modules())
    with pytest.raises(ValueError, match=r"`adapter.rank` \(=4\) .* at `out`"):
        inject.inject(net, LoRA(rank=4), targets=BOTH)
    assert list(net.modules()) == before


def test_what_is_not_defined_is_refused(net, tmp_path):
    with pytest.raises(ValueError, match=r"`adapter.bias` \(='adapted'\) is not defined for `mlp`"):
        inject.inject(net, LoRA(rank=2, bias="adapted"), targets=MLP)
    shared = Net()
    shared.out.weight = shared.mlp.down.weight
    with pytest.raises(ValueError, match="`mlp` cannot be adapted since it shares its weight with `out`"):
        inject.inject(shared, LoRA(rank=2), targets=MLP)
    normed = Net()
    weight_norm(normed.mlp.down)
    with pytest.raises(ValueError, match="`mlp` cannot be adapted since its weight is computed"):
        inject.inject(normed, LoRA(rank=2), targets=MLP)
    inject.inject(net, LoRA(rank=2), targets=MLP)
    with pytest.raises(ValueError, match=r"`mlp.adapted.down` is part of a module .* which peft cannot name"):
        export_peft(net, tmp_path)
    with pytest.raises(ValueError, match=r"counts linear layers, `mlp.adapted.gate` is none"):
        adapter_flops(LoRA(rank=2), Net(), targets=MLP, init_scheme=KaimingInit(), batch=1, length=1)
    plain = Net()
    del REGISTRY[FusedMLP]
    inject.add_adapter(plain, "a", LoRA(rank=2), targets=Targets(modules=["down"]))
    export_peft(plain, tmp_path / "a", "a")
    with pytest.raises(ValueError, match=r"`mlp.down` is in a module that is replaced as a whole"):
        import_peft(net, tmp_path / "a")
    replaces(FusedMLP)(AdaptedFusedMLP)
    with pytest.raises(ValueError, match=r"layers in a FusedMLP are adapted one by one.*\(at `mlp`\)"):
        inject.add_adapter(plain, "b", LoRA(rank=2), targets=MLP)


@pytest.mark.parametrize(
    ("constructor", "message"),
    [
        (lambda module: None, r"must be a module with adapted layers in it; .* NoneType \(at `mlp`\)"),
        (lambda module: nn.Identity(), "must be a module with adapted layers in it; .* Identity"),
        (lambda module: AdaptedLinear(copy.deepcopy(module.down)), "must adapt modules of the module itself"),
        (lambda module: nn.Sequential(AdaptedLinear(module.down), nn.Linear(2, 2)), "without parameters of its own"),
        (lambda module: nn.ModuleList([AdaptedLinear(module.down)] * 2 + [AdaptedLinear(module.down)]), "with_weight"),
    ],
)
def test_a_constructor_that_does_not_fit_is_refused(net, constructor, message):
    replaces(FusedMLP)(constructor)
    with pytest.raises(ValueError, match=message):
        inject.inject(net, LoRA(rank=2), targets=MLP)
    assert type(net.mlp) is FusedMLP
