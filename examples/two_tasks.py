"""Two tasks trained in interleaved batches on one frozen base; each result is that of training alone, to the bit.

    python examples/two_tasks.py                                # two synthetic tasks, no network
    python examples/two_tasks.py --data-dir DIR --rows 512      # MRPC and RTE from DIR/{mrpc,rte}/{train,validation}.*

Each task has its own adapter, head, optimizer, batch order and random numbers for dropout.
"""

import argparse
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from xlora_bench import LoRA, Pretrained, Targets, TextTask, inject
from xlora_bench.data import metrics
from xlora_bench.data.datamodule import TextData
from xlora_bench.models.packed import choose_layout, forward
from xlora_bench.runs import seeds
from xlora_bench.system.log_levels import set_log_levels

log = logging.getLogger("two_tasks")

BASE = Pretrained(name="embedded/minilm", dropout=0.1)
ADAPTER = LoRA(rank=8, alpha=16)
TARGETS = Targets(modules=["query", "value"])
DONE = object()
PAIR = ("sentence1", "sentence2")
REAL = {"mrpc": (PAIR, ("not_equivalent", "equivalent")), "rte": (PAIR, ("entailment", "not_entailment"))}
SYNTHETIC = {
    "synth_pair": (PAIR, ("contradicts", "agrees")),
    "synth_single": (("sentence",), ("negative", "positive")),
}


@dataclass
class Job:
    """The training of one task: its data, the model, and the optimizer of its adapter."""

    data: TextData
    model: nn.Module
    optimizer: torch.optim.Optimizer
    seed: int

    @property
    def name(self) -> str:
        """The name of the task and of its adapter."""
        return self.data.task.name

    def train(self, epochs: int) -> Iterator[None]:
        """Take one optimizer step per `next`; the batch order and the dropout depend on this task alone."""
        step = 0
        for epoch in range(epochs):
            loader = self.data.train_dataloader()
            loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
            for batch in loader:
                step += 1
                torch.manual_seed(seeds.derive(self.seed, "dropout", self.name, step))
                self.step(batch)
                yield

    def step(self, batch: dict[str, Any]) -> None:
        """Train the task's adapter on one batch; no other adapter is touched."""
        with inject.use_adapters(self.model.train(), self.name):
            loss = F.cross_entropy(forward(self.model, batch), batch["labels"])
            loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    @torch.no_grad()
    def evaluate(self) -> tuple[Tensor, dict[str, float]]:
        """Return the logits of the validation split and their metrics."""
        with inject.use_adapters(self.model.eval(), self.name):
            parts = [(forward(self.model, batch), batch["labels"]) for batch in self.data.val_dataloader()[0]]
        logits, labels = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        return logits, metrics.compute(self.data.task, logits.numpy(), labels.numpy())


def tasks(options: argparse.Namespace) -> list[TextTask]:
    """Return the two tasks: MRPC and RTE if there is a folder with data, else synthetic ones."""
    return [
        TextTask(
            name=name,
            text_columns=columns,
            labels=labels,
            metrics=("accuracy",),
            headline="accuracy",
            max_train_rows=options.rows,
            max_eval_rows=options.rows,
            batch_size=options.batch_size,
        )
        for name, (columns, labels) in (REAL if options.data_dir else SYNTHETIC).items()
    ]


def prepared(options: argparse.Namespace) -> list[TextData]:
    """Return the data of both tasks, with the batch layout that the base model supports."""
    tokenizer, model = BASE.tokenizer(), BASE.load(num_labels=2, seed=0)
    every = []
    for task in tasks(options):
        data = TextData(
            task, tokenizer=tokenizer, seed=options.seed, cache_dir=options.cache_dir, data_dir=options.data_dir
        )
        data.setup()
        split = data.splits[task.train_split]
        examples = [split[row] for row in range(min(len(split), 64))]
        data.train_collator = data.eval_collator = choose_layout(model, tokenizer=tokenizer, examples=examples)
        every.append(data)
    return every


def jobs_on_one_base(every: Sequence[TextData], options: argparse.Namespace) -> list[Job]:
    """Load one base and add an adapter per task; its init and its head depend only on the task and the seed."""
    model: nn.Module = BASE.load(num_labels=2, seed=0)
    for data in every:
        name = data.task.name
        model = inject.add_adapter(
            model,
            name,
            ADAPTER,
            targets=TARGETS,
            generator=seeds.generator(options.seed, "adapter", name),
            head=inject.new_head(model, num_labels=data.task.num_labels, seed=seeds.derive(options.seed, name)),
        )
    optimizers = [torch.optim.AdamW(inject.adapter_parameters(model, data.task.name), lr=options.lr) for data in every]
    return [
        Job(data=data, model=model, optimizer=optimizer, seed=options.seed)
        for data, optimizer in zip(every, optimizers, strict=True)
    ]


def interleave(jobs: Sequence[Job], epochs: int) -> None:
    """Train the jobs in turns, one batch each, until all are completed."""
    running = [job.train(epochs) for job in jobs]
    while running:
        running = [steps for steps in running if next(steps, DONE) is not DONE]


def result(job: Job) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Return what training a task gives: the tensors of adapter and head, the validation logits, and the metrics."""
    logits, scores = job.evaluate()
    head = {
        f"{module_name}.{key}": tensor
        for module_name, module in inject.heads(job.model, job.name).items()
        for key, tensor in module.state_dict().items()
    }
    return {**inject.adapter_state_dict(job.model, job.name), **head, "logits": logits}, scores


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Tell whether two results are equal to the bit."""
    return one.keys() == other.keys() and all(torch.equal(tensor, other[key]) for key, tensor in one.items())


def resident_megabytes() -> float:
    """Return the memory of this process."""
    return psutil.Process().memory_info().rss / 2**20


def report_size(jobs: Sequence[Job]) -> None:
    """Log the parameters of the base and of each adapter."""
    total = sum(parameter.numel() for parameter in jobs[0].model.parameters())
    own = {job.name: sum(p.numel() for p in inject.adapter_parameters(job.model, job.name)) for job in jobs}
    base = total - sum(own.values())
    log.info("parameters: %d of one base, %s; two models would have %d", base, own, 2 * base + sum(own.values()))


def main(arguments: Sequence[str] | None = None) -> bool:
    """Train both tasks interleaved, then each alone, and tell whether the results are equal to the bit."""
    options = parsed(arguments)
    every = prepared(options)
    together = jobs_on_one_base(every, options)
    report_size(together)
    interleave(together, options.epochs)
    log.info("memory with both tasks trained on one base: %.0f MB", resident_megabytes())
    equal = True
    for job in together:
        alone = jobs_on_one_base([job.data], options)
        interleave(alone, options.epochs)
        (interleaved, scores), (solo, _) = result(job), result(alone[0])
        equal = equal and same(interleaved, solo)
        log.info("%s: %s, %s its solo run", job.name, scores, "equals" if same(interleaved, solo) else "DIFFERS from")
    log.info("memory with a second base loaded for the solo runs: %.0f MB", resident_megabytes())
    return equal


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, help="folder with mrpc and rte; two synthetic tasks without it")
    parser.add_argument("--rows", type=int, default=128, help="rows of each split of each task")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache-dir", type=Path, default=Path("~/.cache/xlora_bench").expanduser())
    return parser.parse_args(arguments)


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    log.setLevel(logging.INFO)
    set_log_levels()
    raise SystemExit(0 if main() else 1)
