"""Training is that of transformers' Trainer with peft: the same losses, batch by batch, and the same final logits."""

import copy

import lightning
import peft
import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
    Trainer,
    TrainingArguments,
)

from tests.helpers.classifiers import SIZES, drawn
from tests.helpers.names import configured
from xlora_bench import inject
from xlora_bench.adapters import LoRA
from xlora_bench.data.task import TextTask
from xlora_bench.inject.head_names import head_parameter_names
from xlora_bench.inject.methods import as_method
from xlora_bench.inject.targets import Targets
from xlora_bench.training.loop.module import Classifier
from xlora_bench.training.loop.optimizers import AdamW, Schedule

pytestmark = pytest.mark.slow

ROWS, BATCH, WINDOW, EPOCHS = 45, 8, 4, 20  # 6 batches, the last one of 5 rows; windows of 4 and of 2; 40 steps
STEPS = 40
LR, HEAD_LR, DECAY, CLIP, WARMUP = 2e-3, 5e-3, 0.1, 0.05, 4
NETS = {
    "bert": (BertForSequenceClassification, BertConfig, ["query", "value"]),
    "roberta": (RobertaForSequenceClassification, RobertaConfig, ["query", "value"]),
    "deberta": (DebertaV2ForSequenceClassification, DebertaV2Config, ["query_proj", "value_proj"]),
}


def rows():
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(3, 12, (ROWS,), generator=generator)
    ids = [torch.randint(3, 60, (int(length),), generator=generator) for length in lengths]
    labels = torch.randint(0, 3, (ROWS,), generator=generator)
    return [{"input_ids": one, "labels": label} for one, label in zip(ids, labels, strict=True)]


def collated(examples):
    ids = torch.nn.utils.rnn.pad_sequence([one["input_ids"] for one in examples], batch_first=True, padding_value=1)
    labels = torch.stack([one["labels"] for one in examples])
    return {"input_ids": ids, "attention_mask": (ids != 1).long(), "labels": labels}


def loader():
    return DataLoader(rows(), batch_size=BATCH, collate_fn=collated)


def recorded(net):
    """Record the mean loss of every training batch of a model."""
    losses = []

    def note(module, args, kwargs, output):
        if module.training:
            losses.append((kwargs, output.logits.detach()))

    net.register_forward_hook(note, with_kwargs=True)
    return losses


def means(losses):
    batches = [batch["labels"] for _ in range(EPOCHS) for batch in loader()]
    assert len(losses) == len(batches)
    pairs = zip(losses, batches, strict=True)
    return torch.stack([cross_entropy(logits.double(), labels) for (_, logits), labels in pairs])


class Ours(Classifier):
    """The classifier without an evaluation in training."""

    validation_step = None


def ours(net, targets, *, clip=CLIP):
    task = TextTask(
        name="x", text_columns=("text",), labels=("a", "b", "c"), metrics=("accuracy",), headline="accuracy",
        batch_size=BATCH,
    )  # fmt: skip
    adapter = LoRA(rank=4, alpha=8)
    method = as_method(adapter)
    head = head_parameter_names(net)
    net = method.apply(
        net, targets=Targets(modules=targets), init_scheme=adapter.default_init(), seed=0, total_steps=STEPS
    )
    for name, parameter in net.named_parameters():
        if name in head:
            parameter.requires_grad_(True)
    start = {name: copy.deepcopy(delta.state_dict()) for name, delta in inject.deltas(net).items()}
    losses = recorded(net.train())
    classifier = Ours(
        net,
        method=method,
        task=task,
        optimizer=AdamW(lr=LR, head_lr=HEAD_LR, weight_decay=DECAY),
        schedule=Schedule(name="linear", warmup=WARMUP / STEPS),
        head=head,
    )
    trainer = lightning.Trainer(
        max_epochs=EPOCHS, accumulate_grad_batches=WINDOW, gradient_clip_val=clip, accelerator="cpu", logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(classifier, loader())
    assert trainer.global_step == STEPS
    return net, start, means(losses)


def mean_over_window(outputs, labels, num_items_in_batch):
    """The loss of a batch as its part of the mean over the rows of the accumulation window.

    Without it, the Trainer of transformers 5.23 sums the mean losses of a window for these models: it takes them to
    divide by `num_items_in_batch`, which they ignore.
    """
    return cross_entropy(outputs.logits, labels, reduction="sum") / num_items_in_batch


class Theirs(Trainer):
    def get_train_dataloader(self):
        return loader()

    def create_optimizer(self, model=None):
        decayed = set(self.get_decay_parameter_names(self.model))
        named = [(name, one) for name, one in self.model.named_parameters() if one.requires_grad]
        groups = [
            {
                "params": [
                    one for name, one in named if ("modules_to_save" in name) == head and (name in decayed) == keep
                ],
                "lr": HEAD_LR if head else LR,
                "weight_decay": DECAY if keep else 0.0,
            }
            for head in (True, False)
            for keep in (True, False)
        ]
        self.optimizer = torch.optim.AdamW([group for group in groups if group["params"]], fused=True)
        return self.optimizer


def theirs(net, targets, start, folder):
    config = peft.LoraConfig(
        r=4, lora_alpha=8, target_modules=targets, task_type="SEQ_CLS", modules_to_save=["classifier", "pooler"]
        if isinstance(net, DebertaV2ForSequenceClassification) else ["classifier"],
    )  # fmt: skip
    net = peft.get_peft_model(net, config)
    state = net.state_dict()
    for module_name, factors in start.items():
        for letter in "AB":
            state[f"base_model.model.{module_name}.lora_{letter}.default.weight"].copy_(factors[f"lora_{letter}"])
    losses = recorded(net)
    arguments = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=EPOCHS,
        per_device_train_batch_size=BATCH,
        gradient_accumulation_steps=WINDOW,
        max_grad_norm=CLIP,
        lr_scheduler_type="linear",
        warmup_steps=WARMUP,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        remove_unused_columns=False,
    )
    trainer = Theirs(net, arguments, train_dataset=rows(), data_collator=collated, compute_loss_func=mean_over_window)
    trainer.train()
    assert trainer.state.global_step == STEPS
    return net, means(losses)


@pytest.mark.parametrize("kind", NETS)
def test_losses_and_logits_are_those_of_the_trainer(kind, tmp_path):
    model, config, targets = NETS[kind]
    base = drawn(model, config(**SIZES, num_labels=3, pad_token_id=1), 0)
    net, start, expected = ours(copy.deepcopy(base), targets)
    other, actual = theirs(copy.deepcopy(base), targets, start, tmp_path)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-6)
    batch = collated(rows())
    labels = batch.pop("labels")
    with torch.no_grad():
        logits, wanted = (one.eval()(**batch).logits for one in (net, other))
    torch.testing.assert_close(logits, wanted, rtol=0, atol=1e-6)
    assert cross_entropy(logits, labels) < expected[:6].mean() - 0.1  # it learned
    unclipped = ours(copy.deepcopy(base), targets, clip=None)[2]
    assert (unclipped - expected).abs().max() > 1e-3  # the threshold was exceeded


def test_the_defaults_are_those_of_the_trainer(tmp_path):
    theirs = TrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    ours = configured()
    assert ours.trainer.gradient_clip_val == theirs.max_grad_norm
    assert ours.trainer.accumulate_grad_batches == theirs.gradient_accumulation_steps
    assert ours.trainer.max_epochs == theirs.num_train_epochs
    assert ours.optimizer.eps == theirs.adam_epsilon
    assert tuple(ours.optimizer.betas) == (theirs.adam_beta1, theirs.adam_beta2)
    assert ours.optimizer.weight_decay == theirs.weight_decay
    assert ours.scheduler.name == theirs.lr_scheduler_type
    assert ours.scheduler.warmup == theirs.warmup_steps
