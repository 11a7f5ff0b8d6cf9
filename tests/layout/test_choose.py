import pytest

from xlora_bench.layout import PackedCollator, choose_layout
from xlora_bench.tasks.collate import PaddedCollator


@pytest.fixture
def choose(build, tokenizer_of, sentences):
    def choose(architecture, **settings):
        model = build(architecture)
        return choose_layout(model, tokenizer=tokenizer_of(model), examples=sentences(range(1, 60)), **settings)

    return choose


@pytest.mark.parametrize("layout", ["auto", "packed"])
def test_exact_models_are_packed(choose, caplog, layout):
    collator = choose("roberta", layout=layout, row_lengths=(48,))
    assert isinstance(collator, PackedCollator)
    assert (collator.row_lengths, collator.position_offset) == ((48,), 2)
    assert not caplog.records


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
    with pytest.raises(ValueError, match=r"`layout` \(='flat'\) must be one of auto, packed, padded"):
        choose("bert", layout="flat")
