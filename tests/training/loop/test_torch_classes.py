"""Any optimizer and schedule of torch, or of the user, by its class: steps, groups and refusals."""

import math

import pytest
import torch
from torch import nn

from tests.helpers.names import configured
from xlora_bench.system.options import OptionsError
from xlora_bench.training.loop.torch_classes import torch_class
from xlora_bench.training.options import check_group

LR, HEAD_LR, RATIO, DECAY = 0.1, 0.03, 4.0, 0.2


class SignStep(torch.optim.Optimizer):
    """An optimizer of a user: steps of one length."""

    def __init__(self, params, lr: float = 1.0, weight_decay: float = 0.0):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    def step(self, closure=None):
        with torch.enable_grad():
            loss = None if closure is None else closure()
        with torch.no_grad():
            for group in self.param_groups:
                for one in group["params"]:
                    one.sub_(group["lr"] * (one.grad + group["weight_decay"] * one).sign())
        return loss


class Fixed(torch.optim.Optimizer):
    """An optimizer without a learning rate."""

    def __init__(self, params):
        super().__init__(params, {})


class Halved(torch.optim.lr_scheduler.LRScheduler):
    """A schedule of a user: half of the learning rate after the first step."""

    def get_lr(self):
        return [rate * (0.5 if self.last_epoch else 1.0) for rate in self.base_lrs]


def net_of():
    torch.manual_seed(0)
    return nn.ModuleDict({name: nn.Linear(3, 3) for name in ("A", "B", "head")} | {"norm": nn.LayerNorm(3)})


def train(net, optimizer):
    for step in range(3):
        optimizer.zero_grad()
        x = torch.linspace(-1, 1, 12).view(4, 3) + step
        net["head"](net["norm"](net["B"](net["A"](x)))).square().mean().backward()
        optimizer.step()
    return [parameter.detach() for parameter in net.parameters()]


KINDS = {
    "sgd": (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
    "adam": (torch.optim.Adam, {"betas": [0.8, 0.9]}),
    "adafactor": (torch.optim.Adafactor, {}),
    "radam": (torch.optim.RAdam, {"eps": 1e-6}),
    "of a user": (SignStep, {}),
}


@pytest.mark.parametrize("name", KINDS)
def test_steps_are_those_of_torchs_own_optimizer(name):
    """The reference has one group per parameter, with the rate and the decay that the rules of this program give."""
    kind, options = KINDS[name]
    rates = {"A": LR, "B": RATIO * LR, "norm": LR, "head": HEAD_LR}
    ours, theirs = net_of(), net_of()
    made = torch_class(kind, {"lr": LR, "head_lr": HEAD_LR, "weight_decay": DECAY, **options})
    optimizer = made.build(ours, {"head.weight", "head.bias"}, {"B.weight": RATIO, "B.bias": RATIO})
    reference = kind(
        [
            {
                "params": [parameter],
                "lr": rates[name.split(".")[0]],
                "weight_decay": DECAY if name in ("A.weight", "B.weight", "head.weight") else 0.0,
            }
            for name, parameter in theirs.named_parameters()
        ],
        lr=LR,
        **options,
    )
    torch.testing.assert_close(train(ours, optimizer), train(theirs, reference), rtol=1e-6, atol=1e-7)


def test_a_class_decays_by_its_own_default_but_spares_biases():
    groups = torch_class(torch.optim.AdamW, {"lr": LR}).build(net_of(), set(), {}).param_groups
    assert sorted((group["weight_decay"], len(group["params"])) for group in groups) == [(0.0, 5), (0.01, 3)]


def test_a_class_without_weight_decay_takes_none_that_is_zero():
    groups = torch_class(torch.optim.Rprop, {"lr": LR, "weight_decay": 0.0}).build(net_of(), set(), {}).param_groups
    assert "weight_decay" not in groups[0]


REFUSED = [
    (torch.optim.SGD, {"betas": [0.9, 0.9]}, r"`optimizer.betas` .* is not an option of torch.optim.SGD, which has .*"),
    (torch.optim.SGD, {"momentum": "x"}, r"`optimizer.momentum` \(='x'\) must be a number"),
    (torch.optim.SGD, {"nesterov": True}, r"`optimizer.nesterov` \(=True\) does not work with torch.optim.SGD \(Nest"),
    (torch.optim.Adam, {"eps": -1.0}, r"`optimizer.eps` \(=-1.0\) does not work .*Invalid epsilon.* another optimizer"),
    (torch.optim.Adam, {"betas": [0.9]}, r"`optimizer.betas` \(=\[0.9\]\) must be a list of 2 \(a number, a number\)"),
    (torch.optim.Adam, {"weight_decay": -1}, r"`optimizer.weight_decay` \(=-1\) must be a number of at least 0"),
    (torch.optim.Rprop, {"weight_decay": 0.1}, r"`optimizer.weight_decay` .*remove ~optimizer.weight_decay"),
    (torch.optim.SGD, {"lr": 0}, r"`optimizer.lr` \(=0\) must be a number above 0"),
    (torch.optim.LBFGS, {}, r"`optimizer._target_` .*LBFGS doesn't support per-parameter options"),
    (torch.optim.Muon, {}, r"`optimizer._target_` .*Muon only supports 2D parameters"),
    (torch.optim.SparseAdam, {}, r"`optimizer._target_` .*does not support dense gradients"),
    (Fixed, {}, r"`optimizer._target_` .*Fixed'\) has no option `lr`"),
]


@pytest.mark.parametrize(("kind", "options", "message"), REFUSED)
def test_what_cannot_train_is_refused_in_a_line(kind, options, message):
    with pytest.raises(OptionsError, match=message) as caught:
        torch_class(kind, {"lr": 0.1, **options})
    assert len(caught.value.faults) == 1
    assert "\n" not in str(caught.value)


def test_the_check_draws_no_random_number():
    before = torch.get_rng_state()
    torch_class(torch.optim.SGD, {"lr": 0.1})
    torch_class(torch.optim.lr_scheduler.StepLR, {"step_size": 2})
    assert torch.equal(before, torch.get_rng_state())


def rates(schedule, optimizer, steps):
    seen = []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return seen


def sgd():
    return torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0, momentum=0.5)


@pytest.mark.parametrize(
    ("kind", "options", "theirs"),
    [
        (torch.optim.lr_scheduler.CosineAnnealingLR, {"eta_min": 0.1}, {"T_max": 7}),
        (torch.optim.lr_scheduler.OneCycleLR, {"max_lr": 2.0}, {"total_steps": 7}),
        (torch.optim.lr_scheduler.StepLR, {"step_size": 3, "gamma": 0.5}, {}),
        (Halved, {}, {}),
    ],
)
def test_schedules_are_torchs_own_over_all_steps(kind, options, theirs):
    ours, reference = sgd(), sgd()
    ours = rates(torch_class(kind, options).build(ours, 7), ours, 6)
    assert ours == rates(kind(reference, **options, **theirs), reference, 6)
    assert len(set(ours)) > 1


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (torch.optim.lr_scheduler.ReduceLROnPlateau, {}, r"`scheduler._target_` .*metrics.*choose another scheduler"),
        (torch.optim.lr_scheduler.StepLR, {"step_size": 2, "name": "x"}, r"`scheduler.name` .*remove ~scheduler.name"),
        (torch.optim.lr_scheduler.StepLR, {}, "`scheduler.step_size` is missing: it must be a whole number"),
    ],
)
def test_a_schedule_that_does_not_work_is_refused(kind, options, message):
    with pytest.raises(OptionsError, match=message):
        torch_class(kind, options)


@pytest.mark.parametrize(
    ("choice", "formula"),
    [
        ("polynomial", lambda t: (1 - 1e-7) * (1 - t) + 1e-7),
        ("cosine_with_restarts", lambda t: (1 + math.cos(math.pi * t)) / 2),
        ("linear", lambda t: 1 - t),
    ],
)
def test_choices_of_the_schedule_follow_their_formulas(choice, formula):
    schedule, faults = check_group("scheduler", dict(configured(f"scheduler={choice}").scheduler))
    optimizer = sgd()
    assert not faults
    assert rates(schedule.build(optimizer, 10), optimizer, 10) == pytest.approx([formula(k / 10) for k in range(10)])
