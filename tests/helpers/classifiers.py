"""Small Hugging Face classifiers for tests, made from a config: no files, no network."""

import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    PreTrainedModel,
    RobertaConfig,
    RobertaForSequenceClassification,
)

SIZES = {
    "vocab_size": 60,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 20,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "initializer_range": 0.2,
}


def roberta(num_labels: int = 2, *, seed: int = 0, layers: int = 2) -> PreTrainedModel:
    """Return a RoBERTa classifier, whose head is a module of two linear layers."""
    config = RobertaConfig(**SIZES | {"num_hidden_layers": layers}, num_labels=num_labels)
    return drawn(RobertaForSequenceClassification, config, seed)


def bert(num_labels: int = 2, *, seed: int = 0) -> PreTrainedModel:
    """Return a BERT classifier, whose head is one linear layer."""
    return drawn(BertForSequenceClassification, BertConfig(**SIZES, num_labels=num_labels), seed)


def drawn(kind, config, seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return kind(config).eval()


def sentences(rows: int = 6, length: int = 7, *, seed: int = 1) -> dict[str, torch.Tensor]:
    """Return ids and a mask for `rows` sentences."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, 60, (rows, length), generator=generator)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def perturb(parameters, *, seed: int = 3, std: float = 0.1) -> None:
    """Move parameters away from their start."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(std * torch.randn(parameter.shape, generator=generator))
