"""DoRA, VeRA and LoRA+ equal peft's; LoRA-XS, LoRA-FA and the renamed starts equal the formulas of their papers."""

import copy

import peft
import pytest
import torch
from peft.optimizers import create_loraplus_optimizer
from torch import nn

from tests.adapters.test_parity_with_peft import ALPHA, PREFIX, RANK, TARGETS, base, batch, losses, peft_lora  # noqa: F401
from tests.helpers.names import configured, part
from tests.helpers.nets import TARGETS as TARGET
from tests.helpers.nets import Net, inputs
from xlora_bench import inject
from xlora_bench.inject.methods import as_method
from xlora_bench.training.loop.optimizers import AdamW


def adapted(base, name, *overrides):  # noqa: F811
    adapter = part("adapter", name, f"adapter.rank={RANK}", f"adapter.alpha={ALPHA}", *overrides)
    return inject.inject(copy.deepcopy(base), adapter, targets=TARGETS, init_scheme=adapter.default_init())


def compare(mine, theirs, batch, pairs):  # noqa: F811
    """Logits, gradients of the (ours, theirs) parameter pairs, and 20 steps."""
    torch.testing.assert_close(mine(**batch).logits, theirs(**batch).logits, rtol=1e-5, atol=1e-6)
    mine(**batch).loss.backward()
    theirs(**batch).loss.backward()
    for ours, other in pairs:
        torch.testing.assert_close(ours.grad, other.grad.reshape(ours.shape), rtol=1e-3, atol=1e-7)
    assert losses(mine, batch) == pytest.approx(losses(theirs, batch), rel=1e-4)


def test_dora_equals_peft(base, batch):  # noqa: F811
    theirs, mine, pairs = peft_lora(base, use_dora=True), adapted(base, "dora"), []
    for place, delta in inject.deltas(mine).items():
        layer = theirs.get_submodule(PREFIX + place)
        nn.init.normal_(layer.lora_B["default"].weight, std=0.1, generator=torch.Generator().manual_seed(3))
        magnitude = layer.lora_magnitude_vector["default"].weight
        torch.testing.assert_close(delta.magnitude, magnitude)  # both start at the row norms
        with torch.no_grad():
            delta.lora_A.copy_(layer.lora_A["default"].weight)
            delta.lora_B.copy_(layer.lora_B["default"].weight)
        pairs += [(delta.lora_A, layer.lora_A["default"].weight), (delta.lora_B, layer.lora_B["default"].weight)]
        pairs.append((delta.magnitude, magnitude))
    compare(mine, theirs, batch, pairs)


def test_vera_equals_peft(base, batch):  # noqa: F811
    config = peft.VeraConfig(r=RANK, target_modules=["query", "value"], save_projection=True)
    theirs = peft.get_peft_model(copy.deepcopy(base), config)
    mine, pairs = adapted(base, "vera", f"adapter.alpha={RANK}"), []
    for place, delta in inject.deltas(mine).items():
        layer = theirs.get_submodule(PREFIX + place)
        nn.init.normal_(layer.vera_lambda_b["default"], std=0.1, generator=torch.Generator().manual_seed(3))
        out_features, in_features = delta.projection_B.shape[0], delta.projection_A.shape[1]
        with torch.no_grad():
            delta.projection_A.copy_(layer.vera_A["default"][:, :in_features])
            delta.projection_B.copy_(layer.vera_B["default"][:out_features])
            delta.vera_b.copy_(layer.vera_lambda_b["default"])
            torch.testing.assert_close(delta.vera_d, layer.vera_lambda_d["default"])
        pairs += [(delta.vera_b, layer.vera_lambda_b["default"]), (delta.vera_d, layer.vera_lambda_d["default"])]
    compare(mine, theirs, batch, pairs)


def test_vera_shares_one_copy_of_its_projections():
    net = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    adapter = part("adapter", "vera", "adapter.rank=4")
    targets = part("targets", "all_linear")
    deltas = inject.deltas(
        as_method(adapter).apply(net, targets=targets, init_scheme=adapter.default_init(), seed=0, total_steps=1)
    )
    assert deltas["0"].projection_A.data_ptr() == deltas["1"].projection_A.data_ptr()
    assert not any("projection" in key for key in inject.adapter_state_dict(net))


def test_lora_plus_trains_b_at_the_ratio_as_peft_does(base, batch):  # noqa: F811
    theirs, mine = peft_lora(base), adapted(base, "lora_plus")
    for place, delta in inject.deltas(mine).items():
        with torch.no_grad():
            delta.lora_A.copy_(theirs.get_submodule(PREFIX + place).lora_A["default"].weight)
    method = part("adapter", "lora_plus")
    ours = AdamW(lr=1e-3).build(mine, set(), as_method(method).lr_ratios(mine))
    other = create_loraplus_optimizer(theirs, torch.optim.AdamW, lr=1e-3, loraplus_lr_ratio=16, weight_decay=0.0)
    curves = []
    for model, optimizer in ((mine, ours), (theirs, other)):
        curve = []
        for _ in range(20):
            optimizer.zero_grad()
            loss = model(**batch).loss
            loss.backward()
            optimizer.step()
            curve.append(loss.item())
        curves.append(curve)
    assert curves[0] == pytest.approx(curves[1], rel=1e-5)


def test_lora_xs_trains_a_core_between_frozen_singular_factors():
    adapter = part("adapter", "lora_xs", "adapter.rank=4", "adapter.alpha=4")
    net = as_method(adapter).apply(
        Net(40, 24), targets=TARGET, init_scheme=adapter.default_init(), seed=0, total_steps=1
    )
    delta, weight = inject.deltas(net)["body.target"], Net(40, 24).body["target"].weight
    U, S, Vh = torch.linalg.svd(weight, full_matrices=False)
    signs = U.gather(0, U.abs().argmax(0, keepdim=True)).sign()  # the largest entry of each column is positive
    U, Vh = U * signs, Vh * signs.T
    with torch.no_grad():
        R = delta.lora_E.add_(torch.randn(4, 4, generator=torch.Generator().manual_seed(0)))
    expected = U[:, :4] * S[:4] @ R @ Vh[:4]
    torch.testing.assert_close(delta.matrix(), expected, rtol=1e-3, atol=1e-4)
    assert [name for name, _ in delta.named_parameters()] == ["lora_E"]


def test_lora_fa_freezes_a_at_its_kaiming_start():
    adapter = part("adapter", "lora_fa", "adapter.rank=4")
    net = as_method(adapter).apply(
        Net(40, 24), targets=TARGET, init_scheme=adapter.default_init(), seed=0, total_steps=1
    )
    delta = inject.deltas(net)["body.target"]
    assert [name for name, _ in delta.named_parameters()] == ["lora_B"]
    assert 0 < delta.lora_A.abs().max() <= 1 / 24**0.5
    net(inputs()).sum().backward()
    assert delta.lora_B.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("name", "same"),
    [
        ("pissa", ("adapter=lora", "init_scheme=svd_both")),
        ("olora", ("adapter=lora", "init_scheme=qr")),
        ("milora", ("adapter=lora", "init_scheme=svd_minor")),
        ("rslora", ("adapter=lora", "adapter.use_rslora=true")),
        ("lora_fa", ("adapter=asymmetric", "adapter.spec=A_he_hB_zero")),
    ],
)
def test_named_variants_are_the_same_config_as_their_parts(name, same):
    """The same resolved config, hence the same run: it is never trained twice under two names."""
    assert configured(f"adapter={name}") == configured(*same)
