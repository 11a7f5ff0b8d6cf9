"""What single variants promise beyond the conformance suite."""

import itertools

import pytest
import torch

from tests.helpers.names import part
from tests.helpers.nets import TARGETS, Net, inputs, train
from xlora_bench import inject
from xlora_bench.adapters import LU, Adapter, Asymmetric, Cholesky, LoLDU, LoRA, Orthogonal, OrthogonalQR
from xlora_bench.adapters.asymmetric import Factor, parse_spec
from xlora_bench.inject.methods import as_method


def adapted(adapter, *, scheme=None, shape=(24, 24), seed=0):
    net = Net(*shape)
    scheme = scheme or adapter.default_init()
    return as_method(adapter).apply(net, targets=TARGETS, init_scheme=scheme, seed=seed, total_steps=1)


def delta_of(net):
    return inject.deltas(net)["body.target"]


@pytest.mark.parametrize("shape", [(24, 24), (40, 24), (24, 40)])
def test_lu_trains_only_the_free_entries_and_its_factors_stay_triangular(shape):
    net = adapted(LU(rank=5), shape=shape)
    train(net, inputs(), steps=3)
    L, U = delta_of(net).current_factors()
    assert torch.equal(L, L.tril())
    assert torch.equal(U, U.triu())
    assert inject.parameter_count(net) == 5 * sum(shape) - 5 * 4
    assert set(inject.adapter_state_dict(net)) >= {"body.target.lora_A.triangle", "body.target.lora_B.rest"}


@pytest.mark.parametrize("signed", [False, True])
def test_cholesky_is_symmetric_square_only_and_signed_by_option(signed):
    net = adapted(Cholesky(rank=4, signed=signed))
    train(net, inputs(), steps=3)
    B, A = delta_of(net).current_factors()
    torch.testing.assert_close(B @ A, (B @ A).T)
    eigenvalues = torch.linalg.eigvalsh(B @ A)
    assert (eigenvalues < -1e-4).any() == signed
    with pytest.raises(ValueError, match=r"needs a square weight, this one is 40 x 24.*\(at `body.target`\)"):
        adapted(Cholesky(rank=4), shape=(40, 24))


def test_retraction_after_the_step_leaves_orthonormal_columns_and_the_product():
    adapter = OrthogonalQR(rank=4, frequency=3)
    net = adapted(adapter)
    train(net, inputs(), steps=2, method=adapter)
    delta = delta_of(net)
    product, drift = delta.lora_B @ delta.lora_A, delta.lora_B.T @ delta.lora_B - torch.eye(4)
    assert drift.norm() > 1e-3
    as_method(adapter).post_optimizer_step(net, 3)
    torch.testing.assert_close(delta.lora_B.T @ delta.lora_B, torch.eye(4), rtol=0, atol=1e-5)
    torch.testing.assert_close(delta.lora_B @ delta.lora_A, product, rtol=1e-4, atol=1e-6)


def test_the_penalty_pulls_b_back_to_orthonormal_columns():
    net = adapted(Orthogonal(rank=4, penalty_weight=10.0))
    delta = delta_of(net)
    with torch.no_grad():
        delta.lora_B.mul_(1.3)
    optimizer = torch.optim.SGD([delta.lora_B], lr=2e-3)
    for _ in range(200):
        optimizer.zero_grad()
        inject.penalty(net).backward()
        optimizer.step()
    torch.testing.assert_close(delta.lora_B.T @ delta.lora_B, torch.eye(4), rtol=0, atol=1e-3)


Z_STARTS = ("lu", "uniform", "normal", "constant", "s_uniform", "s_normal", "ones", "zeros")


@pytest.mark.parametrize("z_init", Z_STARTS)
@pytest.mark.parametrize("train_sigma", [False, True])
def test_every_z_start_leaves_the_output_unchanged_to_the_bit(z_init, train_sigma):
    net = adapted(LoLDU(rank=8, alpha=4, z_init=z_init, train_sigma=train_sigma))
    assert torch.equal(net(inputs()), Net(24, 24)(inputs()))
    assert inject.parameter_count(net) == 8 + int(train_sigma)


def test_z_starts_are_what_their_names_say():
    pivots = delta_of(adapted(LoLDU(rank=24, alpha=24))).z.detach()
    starts = {name: delta_of(adapted(LoLDU(rank=24, alpha=24, z_init=name))).z.detach() for name in Z_STARTS}
    assert torch.equal(starts["lu"], pivots)
    assert torch.equal(starts["constant"], pivots.mean().expand(24))
    assert starts["uniform"].abs().max() <= pivots.mean().abs() / 2
    assert starts["s_uniform"].abs().max() <= 1
    assert starts["ones"].eq(1).all()
    assert starts["zeros"].eq(0).all()


def test_frozen_sigma_makes_the_z_starts_train_alike():
    """Only z - z0 enters the update, so without weight decay the start has no influence."""
    finals = []
    for z_init in ("lu", "ones", "zeros"):
        net = adapted(LoLDU(rank=24, alpha=24, z_init=z_init))
        optimizer = torch.optim.SGD([delta_of(net).z], lr=0.1)
        for _ in range(5):
            optimizer.zero_grad()
            (net(inputs()) - 1).square().mean().backward()
            optimizer.step()
        finals.append(net(inputs()).detach())
    torch.testing.assert_close(finals[0], finals[1], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(finals[0], finals[2], rtol=1e-4, atol=1e-6)


TOKENS_A = [f"{h}A_{init}" for h in ("", "h") for init in ("V", "V_last", "rand", "he", "zero")]
TOKENS_B = [f"{h}B_{init}" for h in ("", "h") for init in ("U", "U_last", "rand", "he", "zero")]


def learns(a, b):
    trained = a.startswith("h") or b.startswith("h")
    frozen_zero = any(token.endswith("zero") and not token.startswith("h") for token in (a, b))
    return trained and not frozen_zero and not (a.endswith("zero") and b.endswith("zero"))


@pytest.mark.parametrize(("a", "b"), [pair for pair in itertools.product(TOKENS_A, TOKENS_B) if learns(*pair)])
def test_the_grammar_means_what_it_says_in_either_order(a, b):
    expected = {token.lstrip("h")[0]: Factor(token.lstrip("h")[2:], token.startswith("h")) for token in (a, b)}
    expected = {
        "A": Factor(a.split("A_")[1], a.startswith("h")),
        "B": Factor(b.split("B_")[1], b.startswith("h")),
    }
    assert parse_spec(f"{a}_{b}") == parse_spec(f"{b}_{a}") == expected
    net = adapted(Asymmetric(rank=4, spec=f"{a}_{b}"))
    delta = delta_of(net)
    trained = {name.removeprefix("lora_") for name, _ in delta.named_parameters()}
    assert trained == {name for name, factor in expected.items() if factor.train}
    assert torch.equal(net(inputs()), Net(24, 24)(inputs()))
    assert inject.parameter_count(net) == 4 * 24 * len(trained)


def test_v_and_u_are_singular_vectors_of_the_pretrained_weight():
    weight = Net(40, 24).body["target"].weight
    U, _, Vh = torch.linalg.svd(weight, full_matrices=False)
    for suffix, chosen in (("", slice(0, 4)), ("_last", slice(20, 24))):
        delta = delta_of(adapted(Asymmetric(rank=4, spec=f"hA_V{suffix}_hB_U{suffix}"), shape=(40, 24)))
        overlap_right = torch.linalg.svdvals(delta.lora_A @ Vh[chosen].T)
        overlap_left = torch.linalg.svdvals(delta.lora_B.T @ U[:, chosen])
        torch.testing.assert_close(overlap_right, torch.ones(4), rtol=0, atol=1e-4)
        torch.testing.assert_close(overlap_left, torch.ones(4), rtol=0, atol=1e-4)


def test_random_frames_are_orthonormal_without_a_scale():
    delta = delta_of(adapted(Asymmetric(rank=8, spec="A_rand_hB_zero"), shape=(24, 64)))
    torch.testing.assert_close(delta.lora_A @ delta.lora_A.T, torch.eye(8), rtol=0, atol=1e-5)
    assert delta.lora_A.norm().item() == pytest.approx(8**0.5, rel=1e-5)


def test_a_middle_factor_exists_only_when_asked_for():
    assert delta_of(adapted(Asymmetric(rank=4))).lora_E is None
    net = adapted(Asymmetric(rank=4, spec="A_V_B_U_hE_rand"))
    assert inject.parameter_count(net) == 16
    assert delta_of(net).lora_E.std().item() == pytest.approx(1e-5, rel=0.6)


def test_the_structured_form_says_the_same_as_the_spec():
    structured = Asymmetric(rank=4, spec=None, A={"init": "rand", "train": False}, B={"init": "zero", "train": True})
    assert structured.plan == Asymmetric(rank=4, spec="hB_zero_A_rand").plan


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("A_rand", "says nothing about B"),
        ("A_rand_hA_he", "does not parse at 'hA_he'"),
        ("A_random_hB_zero", "does not parse at 'A_random"),
        ("A_U_hB_zero", "init 'U' does not fit factor A"),
        ("A_rand_B_he", "trains nothing"),
        ("A_zero_hB_he", "freezes A at zero"),
        ("hA_zero_hB_zero", "none gets a gradient"),
        ("hB_zeroA_rand", "does not parse"),
    ],
)
def test_specs_that_mean_nothing_are_refused(spec, message):
    with pytest.raises(ValueError, match=message):
        Asymmetric(spec=spec)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 0}, r"`adapter.rank` \(=0\)"),
        ({"rank": "most"}, r"`adapter.rank` \(='most'\)"),
        ({"dropout": 1.0}, r"`adapter.dropout` \(=1.0\)"),
        ({"alpha": float("nan")}, r"`adapter.alpha` \(=nan\)"),
        ({"energy_threshold": 90}, r"`adapter.energy_threshold` \(=90\)"),
        ({"bias": "some"}, r"`adapter.bias` \(='some'\)"),
    ],
)
def test_options_out_of_range_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        LoRA(**options)


def test_rank_and_alpha_patterns_take_the_longest_ending():
    adapter = LoRA(rank=2, alpha=8, rank_pattern={"target": 3, "body.target": 4}, alpha_pattern={"target": 20})
    delta = delta_of(adapted(adapter))
    assert (delta.rank, delta.scaling) == (4, 5.0)


@pytest.mark.parametrize(("shape", "rank"), [((40, 24), 4), ((25, 30), 5), ((1, 9), 1), ((36, 36), 6)])
def test_sqrt_rank_is_that_of_the_smaller_side(shape, rank):
    net = adapted(LoRA(rank="sqrt", alpha=8), shape=shape)
    assert (delta_of(net).rank, delta_of(net).scaling) == (rank, 8 / rank)
    assert inject.parameter_count(net) == as_method(LoRA(rank="sqrt")).closed_form(net) == rank * sum(shape)
    assert delta_of(adapted(LoRA(rank="sqrt", rank_pattern={"target": 1}), shape=shape)).rank == 1


@pytest.mark.parametrize("rank", ["Sqrt", "sqrt(r)", "", 0, -1, 2.5])
def test_another_rank_is_refused(rank):
    with pytest.raises(ValueError, match=r"^`adapter.rank` \(=.*\) must be .*'auto'.*'sqrt'"):
        LoRA(rank=rank)


def test_auto_rank_holds_the_energy_and_is_clamped():
    weight = Net(40, 24).body["target"].weight.detach()
    energy = torch.linalg.svdvals(weight).square()
    net = adapted(LoRA(rank="auto", energy_threshold=0.7), shape=(40, 24))
    rank = delta_of(net).rank
    assert energy[:rank].sum() >= 0.7 * energy.sum() > energy[: rank - 1].sum()
    assert as_method(LoRA()).ranks(net) == {"body.target": rank}
    assert delta_of(adapted(LoRA(rank="auto", rank_max=2), shape=(40, 24))).rank == 2
    assert delta_of(adapted(LoRA(rank="auto", energy_threshold=0.01, rank_min=5), shape=(40, 24))).rank == 5
    assert delta_of(adapted(LoRA(rank="auto", energy_threshold=1.0), shape=(40, 24))).rank <= 24


@pytest.mark.parametrize(("bias", "count"), [("none", 0), ("all", 24 + 24 + 6 + 3), ("adapted", 24)])
def test_biases_train_by_option(bias, count):
    net = adapted(LoRA(rank=2, bias=bias))
    trained = sum(p.numel() for n, p in net.named_parameters() if p.requires_grad and n.endswith("bias"))
    assert trained == count


def test_dropout_is_on_the_adapters_input_in_training_only():
    net = adapted(LoRA(rank=4, alpha=4, dropout=0.5), scheme=part("init_scheme", "kaiming"))
    layer, delta = net.body["target"], delta_of(net)
    with torch.no_grad():
        delta.lora_B.normal_(generator=torch.Generator().manual_seed(0))
    x = torch.ones(2000, 24)
    base = layer.base_layer(x)
    full = (layer.eval()(x) - base)[0]
    dropped = layer.train()(x) - base
    torch.testing.assert_close(dropped.mean(0), full, rtol=0.2, atol=0.1)
    # the mask is on the input: its effect is B A (x * mask), of rank r over the samples
    assert torch.linalg.matrix_rank((dropped - full)[:200].detach(), atol=1e-3) == 4


def test_every_adapter_documents_its_equation_count_and_source():
    for name in Adapter.__subclasses__():
        assert "Source" in (name.__doc__ or "") or name.__name__.startswith("From"), name


def test_the_retraction_and_the_penalty_work_together():
    """The penalty pulls between the retractions; without a weight there is none."""
    method = part("adapter", "orthogonal_qr", "adapter.rank=4", "adapter.penalty_weight=0.5", "adapter.frequency=3")
    net = as_method(method).apply(
        Net(24, 24), targets=TARGETS, init_scheme=method.default_init(), seed=0, total_steps=1
    )
    delta = inject.deltas(net)["body.target"]
    with torch.no_grad():
        delta.lora_B.mul_(1.5)
    assert inject.penalty(net).item() == pytest.approx(0.5 * 4 * (1.5**2 - 1) ** 2, rel=1e-5)
    as_method(method).post_optimizer_step(net, 2)
    assert delta.penalty() > 0
    as_method(method).post_optimizer_step(net, 3)
    assert delta.penalty() < 1e-10
    assert part("adapter", "orthogonal_qr").penalty_weight is None
    plain = part("adapter", "orthogonal_qr", "adapter.rank=4")
    net = as_method(plain).apply(Net(24, 24), targets=TARGETS, init_scheme=plain.default_init(), seed=0, total_steps=1)
    assert inject.penalty(net) is None
