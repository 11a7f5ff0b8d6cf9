"""Tiny random classifiers of each architecture, and batches for them."""

from tests.helpers.architectures import build, one_thread, sentences, tokenizer_of

__all__ = ["build", "one_thread", "sentences", "tokenizer_of"]
