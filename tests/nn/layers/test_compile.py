"""`torch.compile`: one graph without breaks, and the same numbers and gradients."""

import pytest
import torch
from torch import nn

from tests.helpers.adapted import adapted, perturbed, seeded
from xlora_bench import inject

pytestmark = pytest.mark.slow

FLOATS = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(1))
IDS = torch.tensor([[1, 3], [3, 0]])
LAYERS = {
    "linear": (lambda: nn.Linear(6, 8), FLOATS),
    "conv1d": (lambda: nn.Conv1d(4, 8, 3, groups=2, padding="same", padding_mode="circular"), FLOATS),
    "embedding": (lambda: nn.Embedding(10, 6, padding_idx=3, max_norm=1.5), IDS),
}


def gradients(layer):
    return [parameter.grad for parameter in layer.parameters() if parameter.requires_grad]


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize(("adapter", "scheme"), [("lora", "svd_left"), ("lu", "unit_diagonal"), ("loldu", "ldu")])
def test_layers_are_one_graph(kind, adapter, scheme):
    make, x = LAYERS[kind]
    eager, layer = (perturbed(adapted(seeded(make), adapter, scheme)) for _ in range(2))
    torch.compiler.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), eager(x))
    compiled(x).square().sum().backward()
    eager(x).square().sum().backward()
    torch.testing.assert_close(gradients(layer), gradients(eager))
    inject.merge(layer)
    torch.testing.assert_close(compiled(x), eager(x))


def test_inductor_compiles_the_update():
    eager, layer = (perturbed(adapted(seeded(lambda: nn.Linear(6, 8)))) for _ in range(2))
    torch.compiler.reset()
    torch.testing.assert_close(torch.compile(layer, fullgraph=True)(FLOATS), eager(FLOATS))
