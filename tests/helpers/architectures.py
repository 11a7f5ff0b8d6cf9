"""Tiny random classifiers of each architecture, and batches for them."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers

SIZES = {
    "vocab_size": 100,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "num_labels": 3,
    "initializer_range": 0.2,  # so that attention and positions matter to the logits
}
DEBERTA = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_biased_input": False}
ARCHITECTURES = {
    "bert": ("BertConfig", SIZES),
    "roberta": ("RobertaConfig", SIZES | {"pad_token_id": 1, "type_vocab_size": 2}),
    "electra": ("ElectraConfig", SIZES | {"embedding_size": 16}),
    "albert": ("AlbertConfig", SIZES | {"embedding_size": 16}),
    "mpnet": ("MPNetConfig", SIZES),
    "deberta": ("DebertaConfig", SIZES | DEBERTA | {"type_vocab_size": 2}),
    "deberta-v3": (
        "DebertaV2Config",
        SIZES
        | DEBERTA
        | {"type_vocab_size": 2, "position_buckets": 8, "share_att_key": True, "norm_rel_ebd": "layer_norm"},
    ),
    "distilbert": (
        "DistilBertConfig",
        {
            "vocab_size": 100,
            "dim": 32,
            "n_layers": 2,
            "n_heads": 4,
            "hidden_dim": 64,
            "num_labels": 3,
            "initializer_range": 0.2,
        },
    ),
    "gpt2": (
        "GPT2Config",
        {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 100, "num_labels": 3}
        | {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
    ),
    "modernbert": (
        "ModernBertConfig",
        SIZES | {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2},
    ),
}
DROPOUTS = (
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "classifier_dropout_prob",
    "pooler_dropout",
    "dropout",
    "attention_dropout",
    "seq_classif_dropout",
)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def build():
    def build(architecture, *, dropout=0.0):
        name, sizes = ARCHITECTURES[architecture]
        config = getattr(transformers, name)(**sizes)
        for key in DROPOUTS:
            if hasattr(config, key):
                setattr(config, key, dropout)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return transformers.AutoModelForSequenceClassification.from_config(config)

    return build


@pytest.fixture
def tokenizer_of():
    """The two numbers of a tokenizer that a collator reads."""

    def tokenizer_of(model):
        return SimpleNamespace(pad_token_id=model.config.pad_token_id, pad_token_type_id=0)

    return tokenizer_of


@pytest.fixture
def sentences():
    def sentences(lengths, *, pairs=False, seed=0):
        numbers = np.random.default_rng(seed)
        examples = []
        for idx, length in enumerate(lengths):
            example = {
                "input_ids": numbers.integers(5, 100, length).astype(np.int32),
                "label": idx % 3,
                "idx": 1000 + idx,
            }
            if pairs:
                example["token_type_ids"] = (np.arange(length) >= length // 2).astype(np.int32)
            examples.append(example)
        return examples

    return sentences
