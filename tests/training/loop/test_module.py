"""The LightningModule and its callbacks: penalties, splits of an update, optimizer groups, collapse."""

import copy
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from torch import nn
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.t5.modeling_t5 import T5LayerNorm

from tests.helpers.names import part
from tests.helpers.nets import TARGETS, Net
from xlora_bench import inject
from xlora_bench.adapters import Orthogonal
from xlora_bench.adapters.init_schemes import OrthonormalInit
from xlora_bench.inject.methods import as_method
from xlora_bench.training.callbacks.factors import current_factors, gradient_norms, product_norm, split_of_update
from xlora_bench.training.loop.evaluation import Evaluation, best_of, collapse_reason, predictions
from xlora_bench.training.loop.module import Classifier
from xlora_bench.training.loop.optimizers import AdamW, Schedule, undecayed_names
from xlora_bench.training.loop.trained_state import load_trained_state_dict, trained_state_dict

SINGLE, REGRESSION = part("task", "synth_single"), part("task", "synth_pair_regression")


def classifier(method, task=SINGLE):
    net = as_method(method).apply(Net(24, 24), targets=TARGETS, init_scheme=OrthonormalInit(), seed=0, total_steps=1)
    return Classifier(net, method=method, task=task, optimizer=AdamW(), schedule=Schedule(), head=set())


def gaussian(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_evaluation_loss_has_no_penalty():
    module = classifier(Orthogonal(rank=4, penalty_weight=1e6))
    logits, labels = gaussian(8, 2, seed=0), torch.arange(8) % 2
    assert module.loss(logits, labels).item() == pytest.approx(nn.CrossEntropyLoss()(logits, labels).item())


def test_penalty_is_lambda_times_the_mean_over_layers_with_a_gradient_at_the_start():
    method = Orthogonal(rank=4, penalty_weight=0.3)
    net = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6))
    targets = part("targets", "attention_qv", "targets.modules=['0','1']")
    net = as_method(method).apply(net, targets=targets, init_scheme=OrthonormalInit(), seed=0, total_steps=1)
    factors = [delta.lora_B for delta in inject.deltas(net).values()]
    with torch.no_grad():
        for factor in factors:
            factor.mul_(1.5)
    expected = 0.3 * sum(((b.T @ b - torch.eye(4)) ** 2).sum().item() for b in factors) / 2
    penalty = as_method(method).penalty(net)
    assert penalty.item() == pytest.approx(expected, rel=1e-5)
    penalty.backward()
    assert all(factor.grad.abs().sum() > 0 for factor in factors)


def test_regression_loss_is_the_mean_squared_error():
    module = classifier(Orthogonal(rank=4), REGRESSION)
    scores, labels = gaussian(8, 1, seed=0), gaussian(8, seed=1)
    assert module.loss(scores, labels).item() == pytest.approx(((scores[:, 0] - labels) ** 2).mean().item())


def test_the_split_of_an_update_is_exact_and_scaled():
    old = gaussian(9, 3, seed=0), gaussian(3, 7, seed=1)
    new = old[0] + 0.1 * gaussian(9, 3, seed=2), old[1] + 0.1 * gaussian(3, 7, seed=3)
    split = split_of_update(old, new, 1.5)
    d_B, d_A = new[0] - old[0], new[1] - old[1]
    assert split["update_B"] == pytest.approx(1.5 * (d_B @ old[1]).norm().item(), rel=1e-5)
    assert split["update_A"] == pytest.approx(1.5 * (new[0] @ d_A).norm().item(), rel=1e-5)
    assert split["update"] == pytest.approx(1.5 * (new[0] @ new[1] - old[0] @ old[1]).norm().item(), rel=1e-5)
    torch.testing.assert_close(d_B @ old[1] + new[0] @ d_A, new[0] @ new[1] - old[0] @ old[1])
    assert split["change_B"] == pytest.approx(d_B.norm().item())
    assert split["change_A"] == pytest.approx(d_A.norm().item())
    assert product_norm(torch.zeros(4, 2), torch.ones(2, 3)) == 0.0


SOURCES = {  # of B, of A, of neither
    "lora": ({"lora_B"}, {"lora_A"}, set()),
    "dora": ({"lora_B"}, {"lora_A"}, {"magnitude"}),
    "lora_fa": ({"lora_B"}, set(), set()),
    "lora_xs": (set(), {"lora_E"}, set()),
    "vera": ({"vera_b"}, {"vera_d"}, set()),
    "loldu": (set(), {"z"}, set()),
}


@pytest.mark.parametrize("name", SOURCES)
def test_the_gradient_norm_of_a_factor_is_that_of_the_parameters_it_is_made_of(name):
    method = part("adapter", name, "adapter.rank=4")
    net = as_method(method).apply(
        Net(24, 24), targets=TARGETS, init_scheme=method.default_init(), seed=0, total_steps=1
    )
    delta = inject.deltas(net)["body.target"]
    for number, parameter in enumerate(delta.parameters()):
        parameter.grad = gaussian(*parameter.shape, seed=number) if parameter.requires_grad else None
    gradients = {key: p.grad for key, p in delta.named_parameters() if p.grad is not None}
    assert set(gradients) == set.union(*SOURCES[name])
    norms = gradient_norms(delta)
    for column, parts in zip(("grad_norm_B", "grad_norm_A"), SOURCES[name], strict=False):
        expected = sum(gradients[key].square().sum() for key in parts) ** 0.5
        assert float(norms[column]) == pytest.approx(float(expected))
    total = sum(gradient.square().sum() for gradient in gradients.values()) ** 0.5
    assert float(norms["grad_norm"]) == pytest.approx(float(total))


def test_the_norm_of_the_whole_gradient_is_logged_on_the_steps_of_the_curves():
    net, logged = nn.Linear(3, 2), {}
    net.weight.grad, net.bias.grad = gaussian(2, 3, seed=0), None
    log_ = lambda name, value: logged.update({(name, trainer.global_step): float(value)})  # noqa: E731 - a fake
    trainer = SimpleNamespace(loggers=[object()], log_every_n_steps=3, global_step=0)
    for trainer.global_step in range(7):
        Classifier.on_before_optimizer_step(SimpleNamespace(trainer=trainer, parameters=net.parameters, log=log_), None)
    expected = float(net.weight.grad.square().sum() ** 0.5)
    assert logged == {("train/grad_norm", step): pytest.approx(expected) for step in (2, 5)}
    trainer.loggers, trainer.global_step = [], 8
    Classifier.on_before_optimizer_step(SimpleNamespace(trainer=trainer, parameters=net.parameters, log=log_), None)
    assert len(logged) == 2


def test_the_monitor_sees_every_variant():
    for name in ("lora", "lu", "cholesky", "loldu", "asymmetric"):
        method = part("adapter", name, "adapter.rank=4")
        net = as_method(method).apply(
            Net(24, 24), targets=TARGETS, init_scheme=method.default_init(), seed=0, total_steps=1
        )
        B, A = current_factors(net)["body.target"]
        assert (B.shape, A.shape) == ((24, 4), (4, 24))


def test_the_head_has_its_own_learning_rate_and_norms_do_not_decay():
    net = nn.ModuleDict({"body": nn.Linear(2, 2), "norm": nn.LayerNorm(2), "head": nn.Linear(2, 2)})
    optimizer = AdamW(lr=1e-3, head_lr=1e-2, weight_decay=0.1).build(net, {"head.weight", "head.bias"}, {})
    group_of = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    settings = {name: (group_of[id(p)]["lr"], group_of[id(p)]["weight_decay"]) for name, p in net.named_parameters()}
    assert settings == {
        "body.weight": (1e-3, 0.1),
        "body.bias": (1e-3, 0.0),
        "norm.weight": (1e-3, 0.0),
        "norm.bias": (1e-3, 0.0),
        "head.weight": (1e-2, 0.1),
        "head.bias": (1e-2, 0.0),
    }


@pytest.mark.parametrize("norm", [nn.RMSNorm, T5LayerNorm, LlamaRMSNorm, nn.GroupNorm])
def test_no_normalisation_layer_decays(norm):
    net = nn.ModuleDict({"body": nn.Linear(2, 2), "scale": norm(2, 2) if norm is nn.GroupNorm else norm(2)})
    assert undecayed_names(net) == {"body.bias", *(name for name, _ in net.named_parameters() if "scale" in name)}


def test_the_warmup_is_rounded_up():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = Schedule(name="linear", warmup=0.1).build(optimizer, 11)  # 1.1 steps
    rates = [schedule.get_last_lr()[0]]
    for _ in range(2):
        optimizer.step()
        schedule.step()
        rates.append(schedule.get_last_lr()[0])
    assert rates == [0.0, 0.5, 1.0]


def test_linear_schedule_warms_up_over_its_fraction():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = Schedule(warmup=0.1).build(optimizer, 100)
    rates = []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[:11] == pytest.approx([k / 10 for k in range(11)])
    assert rates[99] == pytest.approx(1 / 90)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: AdamW(lr=0), r"`optimizer.lr` \(=0\) must be a number above 0"),
        (lambda: AdamW(head_lr=-1), r"`optimizer.head_lr`"),
        (lambda: Schedule(name="liner"), r"`scheduler.name` \(='liner'\) must be 'linear', 'cosine'"),
        (lambda: Schedule(warmup=6), r"`scheduler.warmup` \(=6\)"),
    ],
)
def test_bad_options_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def evaluation(epoch, logits):
    labels = torch.arange(len(logits)) % 2
    splits = {"validation": (torch.arange(len(logits)), logits, labels)}
    return Evaluation.of(SINGLE, epoch=epoch, splits=splits, loss=nn.functional.cross_entropy)


def test_best_is_the_earliest_of_equals_and_collapse_is_said():
    right = torch.eye(2).repeat(4, 1)
    runs = [evaluation(1, -right), evaluation(2, right), evaluation(3, right)]
    assert best_of(runs, "accuracy").epoch == 2
    assert collapse_reason(runs) is None
    assert collapse_reason([evaluation(4, torch.ones(8, 2))]) == "constant predictions in epoch 4"
    assert collapse_reason([evaluation(5, right / 0)]) == "logits that are not finite in epoch 5"


def test_an_evaluation_survives_a_checkpoint(tmp_path):
    before = evaluation(1, gaussian(6, 2, seed=0))
    torch.save(before.as_tensors(), tmp_path / "saved")
    after = Evaluation.from_tensors(torch.load(tmp_path / "saved", weights_only=True))
    assert after.metrics == before.metrics
    pd.testing.assert_frame_equal(predictions([after]), predictions([before]))


def test_trained_state_is_what_trains_and_refuses_another_variant():
    method = part("adapter", "lora", "adapter.rank=4")
    net = as_method(method).apply(
        Net(24, 24), targets=TARGETS, init_scheme=part("init_scheme", "svd_left"), seed=0, total_steps=1
    )
    net.head.requires_grad_(True)
    state = trained_state_dict(net)
    assert {name.rsplit(".", 1)[-1] for name in state} == {"lora_A", "lora_B", "B0", "A0", "weight", "bias"}
    assert not any("base_layer" in name or "after" in name for name in state)
    other = copy.deepcopy(net)
    other.body["after"].requires_grad_(True)
    with pytest.raises(ValueError, match="of another variant: missing"):
        load_trained_state_dict(other, state)
