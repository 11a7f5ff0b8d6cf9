"""The embedding's options: each does what `nn.Embedding` does, and none of them writes the frozen table."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from tests.helpers.adapted import adapted, matrix, perturbed, seeded
from xlora_bench import inject

IDS = torch.tensor([[1, 3, 3, 0], [5, 3, 9, 1]])
STARTS = [("lora", "kaiming"), ("lora", "svd_left"), ("lu", "unit_diagonal"), ("loldu", "ldu")]


def table(**options):
    return seeded(lambda: nn.Embedding(10, 6, **options))


@pytest.mark.parametrize(("adapter", "scheme"), STARTS)
@pytest.mark.parametrize(
    "options", [{"padding_idx": 3}, {"max_norm": 1.5, "norm_type": 1.0}, {"scale_grad_by_freq": True}]
)
def test_options_leave_the_output_and_merge_as_they_should(options, adapter, scheme):
    base = table(**options)
    layer = adapted(base, adapter, scheme)
    before = layer.base_layer.weight.clone()
    expected = table(**options)(IDS)
    assert torch.equal(layer(IDS), expected)
    output = perturbed(layer)(IDS)
    assert not torch.equal(output, expected)
    assert torch.equal(layer.base_layer.weight, before)
    inject.merge(layer)
    torch.testing.assert_close(layer(IDS), output)
    assert torch.equal(layer.base_layer.weight, before)
    torch.testing.assert_close(inject.remove(layer, merged=True)(IDS), output)


@pytest.mark.parametrize(("adapter", "scheme"), STARTS)
def test_padding_row_has_no_update_and_no_gradient(adapter, scheme):
    layer = perturbed(adapted(table(padding_idx=3), adapter, scheme))
    update = layer(IDS) - layer.base_layer(IDS)
    assert torch.equal(update[IDS == 3], torch.zeros(3, 6))
    assert (update[IDS != 3] != 0).any()
    layer(torch.tensor([3, 3])).sum().backward()
    gradients = [parameter.grad for parameter in layer.deltas["default"].parameters()]
    assert all(gradient is None or not gradient.any() for gradient in gradients)
    assert torch.equal(layer.merged()[3], layer.weight[3])


def test_max_norm_gives_the_numbers_of_nn_embedding_and_adds_the_update_afterwards():
    base = table(max_norm=1.5)
    layer = perturbed(adapted(base))
    update = matrix(layer).T[IDS]
    torch.testing.assert_close(layer(IDS), base(IDS) + update)  # base is written by its own forward; the copy is not
    assert not torch.equal(layer.base_layer.weight, base.weight)


def test_max_norm_factors_are_not_written():
    layer = perturbed(adapted(table(max_norm=0.1)))
    before = {name: tensor.clone() for name, tensor in inject.adapter_state_dict(layer).items()}
    layer(IDS).sum().backward()
    assert all(torch.equal(tensor, before[name]) for name, tensor in inject.adapter_state_dict(layer).items())


def test_frequency_divides_the_gradient_of_a_gathered_column():
    plain, scaled = (perturbed(adapted(table(scale_grad_by_freq=by))) for by in (False, True))
    for layer in (plain, scaled):
        layer(IDS).sum().backward()
    counts = torch.bincount(IDS.flatten(), minlength=10).clamp(min=1)
    gradients = [layer.deltas["default"].lora_A.grad for layer in (plain, scaled)]
    torch.testing.assert_close(gradients[1], gradients[0] / counts)


def test_dropout_is_dropout_on_the_one_hot_input():
    layer = perturbed(adapted(table(), dropout=0.5)).train()
    ids = torch.arange(10).repeat(50)
    torch.manual_seed(0)
    update = (layer(ids) - layer.base_layer(ids)).detach()
    whole = 2.0 * matrix(layer).T[ids]  # kept tokens are scaled by 1 / (1 - 0.5)
    kept = update.abs().sum(1) > 0
    torch.testing.assert_close(update[kept], whole[kept])
    assert 0.3 < kept.float().mean() < 0.7


def test_sparse_is_refused_with_the_way_out():
    base = table(sparse=True)
    with pytest.raises(ValueError, match=r"`sparse` \(=True\) .* set `.sparse = False`"):
        adapted(base)
    base.sparse = False
    layer = adapted(base)
    layer(IDS).sum().backward()
    assert layer.deltas["default"].lora_B.grad.any()


class Largest(TorchDispatchMode):
    """Remembers how many entries the largest computed tensor has, views of the table aside."""

    def __init__(self, weight):
        super().__init__()
        self.storage, self.entries = weight.untyped_storage().data_ptr(), 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.untyped_storage().data_ptr() != self.storage:
            self.entries = max(self.entries, result.numel())
        return result


def test_a_large_vocabulary_costs_one_gather():
    layer = adapted(seeded(lambda: nn.Embedding(5000, 32)), rank=2)
    ids = torch.arange(64).view(2, 32)
    with Largest(layer.weight) as largest:
        layer(ids).sum().backward()
    assert largest.entries == 2 * 5000  # the gradient of A (r, V), and nothing of (V, d) or (tokens, V)


def test_half_precision_table():
    base = table().to(torch.bfloat16)
    layer = perturbed(adapted(base))
    assert layer(IDS).dtype == torch.bfloat16
    expected = base(IDS).float() + F.embedding(IDS, matrix(layer).T)
    torch.testing.assert_close(layer(IDS).float(), expected, rtol=2e-2, atol=2e-2)
