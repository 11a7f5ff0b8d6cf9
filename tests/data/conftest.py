"""What the task tests share: a tiny tokenizer, tiny tables, and the way to the real data."""

import os
from pathlib import Path

import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from xlora_bench.data.task import TextTask

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
WORDS = (
    "the",
    "soup",
    "was",
    "not",
    "good",
    "bad",
    "fresh",
    "cold",
    "and",
    "a",
    "hotel",
    "room",
    "clean",
    "dirty",
)
SENTENCES = ["the soup was good", "the room was not clean and the hotel was dirty", "a cold soup", "bad",
             "the hotel was fresh and clean", "a dirty room", "the soup was not fresh"]  # fmt: skip
REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def tokenizer():
    vocabulary = {word: index for index, word in enumerate((*SPECIAL, *WORDS))}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        model_max_length=128, model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )  # fmt: skip


@pytest.fixture
def make_task():
    def make(**changes):
        fields = {
            "name": "toy",
            "text_columns": ("sentence",),
            "labels": ("no", "yes"),
            "metrics": ("accuracy",),
            "headline": "accuracy",
            "batch_size": 3,
            "eval_batch_size": 4,
        }
        return TextTask(**(fields | changes))

    return make


@pytest.fixture
def frame():
    return pd.DataFrame({"sentence": SENTENCES, "label": [1, 0, 1, 0, 1, 0, 0]})


@pytest.fixture
def write_splits(tmp_path):
    def write(name, **frames):
        folder = tmp_path / "data" / name
        folder.mkdir(parents=True, exist_ok=True)
        for split, frame in frames.items():
            frame.to_parquet(folder / f"{split}.parquet")
        return folder.parent

    return write


@pytest.fixture
def toy_dir(write_splits, frame):
    return write_splits("toy", train=frame, validation=frame.iloc[::-1])


@pytest.fixture
def glue_dir():
    folder = Path(os.environ.get("XLORA_BENCH_GLUE", REPOSITORY.parent / "shared" / "glue"))
    if not folder.is_dir():
        pytest.skip(f"no GLUE data in {folder} (name another folder by XLORA_BENCH_GLUE)")
    return folder


@pytest.fixture
def load_task():
    def load(name, *overrides):
        with initialize_config_dir(str(REPOSITORY / "conf" / "task"), version_base=None):
            return instantiate(compose(name, list(overrides)))

    return load
