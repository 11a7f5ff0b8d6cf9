import copy

import pytest
import torch
from scipy import stats
from torch import nn
from torch.nn import functional as F
from transformers import BertConfig, BertForSequenceClassification

from xlora_bench.models.speedups import use_cheap_dropout
from xlora_bench.nn.ops.attention import ATTENTION
from xlora_bench.nn.ops.dropout import STEPS, Dropout, drop

P = 0.1


def bert(dropout):
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    chances = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    return BertForSequenceClassification(BertConfig(vocab_size=50, **sizes, **chances))


def test_entries_are_dropped_independently_with_the_stated_probability():
    torch.manual_seed(0)
    kept = drop(torch.ones(400, 1000), P) != 0
    count = kept.numel()
    assert stats.binomtest(int(kept.sum()), count, 1 - round(P * STEPS) / STEPS).pvalue > 1e-3
    pairs = (kept[:, 1:] & kept[:, :-1]).float().mean()
    assert abs(pairs - (1 - P) ** 2) < 5 * (0.25 / count) ** 0.5
    rows = kept.sum(1)
    assert rows.float().var().item() == pytest.approx(1000 * P * (1 - P), rel=0.3)


def test_kept_entries_are_scaled_to_the_same_mean_and_gradients_use_the_same_mask():
    x = torch.randn(7, 5, requires_grad=True)
    y = drop(x, 0.5)
    y.sum().backward()
    torch.testing.assert_close(y, x.grad * x)
    assert set(x.grad.unique().tolist()) == {0.0, 2.0}
    dropped = round(P * STEPS) / STEPS
    assert drop(torch.ones(100), P).max().item() == pytest.approx(1 / (1 - dropped))


@pytest.mark.parametrize("p", [0.0, 1e-9, 1.0])
def test_certain_and_vanishing_probabilities(p):
    x = torch.ones(50)
    assert torch.equal(drop(x, p), F.dropout(x, p))


def test_outside_training_nothing_is_dropped_or_drawn():
    x, state = torch.ones(5), torch.get_rng_state()
    assert drop(x, P, training=False) is x
    assert Dropout(P).eval()(x) is x
    assert torch.equal(torch.get_rng_state(), state)


def test_the_seed_decides_the_mask_and_dtypes_stay():
    x = torch.ones(3, 5, 7, dtype=torch.bfloat16)
    masks = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        masks.append(drop(x, 0.5))
    assert masks[0].dtype == torch.bfloat16
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])


@pytest.mark.parametrize("mask", [None, torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]])])
def test_a_model_computes_the_same_where_nothing_is_dropped(mask):
    plain = bert(P).eval()
    cheap = copy.deepcopy(plain)
    use_cheap_dropout(cheap)
    assert cheap.config._attn_implementation == ATTENTION
    assert not any(type(module) is nn.Dropout for module in cheap.modules())
    ids = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]])
    assert torch.equal(cheap(ids, attention_mask=mask).logits, plain(ids, attention_mask=mask).logits)


def test_attention_that_drops_almost_nothing_equals_torchs():
    """At p = 2^-16 about one probability in 65,536 is dropped: none here, and the kept ones grow by that much."""
    plain = bert(0.0).train()
    cheap = copy.deepcopy(plain)
    use_cheap_dropout(cheap)
    for layer in cheap.bert.encoder.layer:
        layer.attention.self.dropout.p = 1 / STEPS
    ids, mask = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]]), torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]])
    torch.manual_seed(0)
    torch.testing.assert_close(cheap(ids, attention_mask=mask).logits, plain(ids, attention_mask=mask).logits,
                               rtol=1e-4, atol=1e-5)  # fmt: skip


def test_mean_and_spread_of_a_model_are_those_of_torchs_dropout():
    plain = bert(0.2).train()
    cheap = copy.deepcopy(plain)
    use_cheap_dropout(cheap)
    ids, mask = torch.randint(1, 50, (1, 12)), torch.ones(1, 12, dtype=torch.long)
    mask[0, -1] = 0
    torch.manual_seed(0)
    many = [model(ids.expand(1500, -1), attention_mask=mask.expand(1500, -1)).logits for model in (plain, cheap)]
    for column in range(2):
        assert stats.ks_2samp(*(logits[:, column].detach().numpy() for logits in many)).pvalue > 1e-3
