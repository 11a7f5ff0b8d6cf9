from contextlib import nullcontext
from functools import partial

import pytest
import torch

from xlora_bench.data.collators import PaddedCollator
from xlora_bench.data.packing import CheapestCollator, PackedCollator
from xlora_bench.models.packed import choose_layout
from xlora_bench.models.speedups import use_attention
from xlora_bench.system.lru_cache import LRUCache


@pytest.fixture
def choose(build, tokenizer_of, sentences):
    def choose(architecture, *, ours=False, **settings):
        model = build(architecture)
        if ours:
            use_attention(model)
        return choose_layout(model, tokenizer=tokenizer_of(model), examples=sentences(range(1, 60)), **settings)

    return choose


@pytest.mark.parametrize("layout", ["auto", "packed"])
def test_exact_models_are_packed(choose, caplog, layout):
    collator = choose("roberta", layout=layout, row_lengths=(48,))
    assert isinstance(collator, PackedCollator)
    assert (collator.row_lengths, collator.position_offset) == ((48,), 2)
    assert not caplog.records


def test_where_attention_is_ours_the_cheaper_layout_is_chosen_by_batch(choose):
    collator = choose("roberta", ours=True, row_lengths=(48, 24))
    assert isinstance(collator, CheapestCollator)
    assert (collator.unpadded.row_length, collator.unpadded.position_offset) == (24, 2)
    assert isinstance(choose("roberta", ours=True, unpadded=False), PackedCollator)
    assert isinstance(choose("mpnet", ours=True), PackedCollator)


def test_rows_where_unpadded_batches_are_not_exact(choose, monkeypatch, caplog):
    monkeypatch.setattr("xlora_bench.nn.ops.attention.grouped_attention", lambda query, *_, **__: query)
    rows = {"row_lengths": (56,)}  # a process keeps its verdicts: this one is of these rows alone
    assert isinstance(choose("electra", ours=True, **rows), PackedCollator)
    assert not caplog.records


def test_a_verdict_holds_for_its_precision_alone(choose, monkeypatch):
    checks, seen = LRUCache(9), []
    verdict = lambda *_, **options: seen.append(options["precision"])  # noqa: E731
    monkeypatch.setattr("xlora_bench.models.packed.choose.verify", verdict)
    tuned = [partial(torch.autocast, "cpu", kind) for kind in (torch.bfloat16, torch.float16)]
    for precision in (nullcontext, *tuned, nullcontext, *tuned):
        choose("bert", checks=checks, precision=precision)
    assert seen == [nullcontext, *tuned]


def test_other_models_are_padded_with_one_line_that_says_why(choose, caplog):
    assert isinstance(choose("gpt2"), PaddedCollator)
    [line] = [record.getMessage() for record in caplog.records if record.name.startswith("xlora_bench")]
    assert "GPT2ForSequenceClassification" in line
    assert "does not run on packed rows" in line


def test_packed_by_hand_is_an_error_where_it_is_not_exact(choose):
    with pytest.raises(ValueError, match="layout=packed is not exact for GPT2ForSequenceClassification"):
        choose("gpt2", layout="packed")


def test_padded_by_hand_and_unknown_layouts(choose):
    assert isinstance(choose("bert", layout="padded"), PaddedCollator)
    with pytest.raises(ValueError, match=r"`layout` \(='square'\) must be one of auto, packed, padded"):
        choose("bert", layout="square")
