"""`xlora-bench evaluate ADAPTER task=...`: score a saved adapter on a task."""

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from xlora_bench.cli.composing import add_config_arguments, composing, import_from_working_folder, is_given
from xlora_bench.cli.errors import run_clearly
from xlora_bench.data.checks import are_hidden
from xlora_bench.runs.console import console
from xlora_bench.system.escape import csv
from xlora_bench.system.io import write_atomically

if TYPE_CHECKING:
    from xlora_bench.data.task import TextTask
    from xlora_bench.training.loop.evaluation import Evaluation


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the metrics of a saved adapter; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="xlora-bench evaluate",
        description="Score a saved adapter on the eval splits of a task. Nothing is trained, and nothing is written "
        "without --output.",
    )
    parser.add_argument(
        "adapter",
        type=Path,
        metavar="ADAPTER",
        help="the folder of a run, a file of xlora_bench.save_adapter, or a folder of peft's save_pretrained",
    )
    add_config_arguments(parser)
    parser.add_argument("--epoch", choices=("last", "best"), default="last", help="of a run (default last)")
    parser.add_argument("--other-base", action="store_true", help="score it on another model than it was trained on")
    parser.add_argument(
        "--trust",
        action="append",
        default=[],
        metavar="MODULE",
        help="a module of yours whose classes the adapter may name; it is imported (repeatable)",
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the scores to this file as JSON")
    parser.add_argument("--predictions", type=Path, metavar="FILE", help="write a line per example to this file as CSV")
    options = parser.parse_intermixed_args(arguments)
    run_clearly(lambda: score(options))
    return 0


def score(options: argparse.Namespace) -> None:
    """Score the adapter with the composed config, print the scores, and write them if there is an `--output`.

    Raises:
        ValueError: if no task is given, or the adapter does not fit the task or the model.
    """
    from xlora_bench.system.log_levels import set_log_levels  # noqa: PLC0415 - slow to import; --help must answer at once

    set_log_levels()
    from xlora_bench.training.evaluate import evaluate  # noqa: PLC0415 - after `set_log_levels`: its imports print, too
    from xlora_bench.training.options import checked_part  # noqa: PLC0415 - see above
    from xlora_bench.training.saved_adapter import load_saved  # noqa: PLC0415 - see above

    if not is_given("task", options.overrides):
        raise ValueError("say what to score it on, such as task=sst2")
    for name in ("output", "predictions"):
        path = getattr(options, name)
        if path is not None and not path.parent.is_dir():
            raise ValueError(f"`--{name}` (={path}) lies in no folder; create {path.parent} first")
    import_from_working_folder()
    with composing(options.config_dir) as composer:
        config = composer.composed(options.overrides)
    task = checked_part("task", config["task"])
    saved = load_saved(
        options.adapter,
        task=task,
        base=checked_part("model", config["model"]),
        recorded_base=not is_given("model", options.overrides),
        epoch=options.epoch,
        trust=options.trust,
        other_base=options.other_base,
    )
    data_dir = config["paths"]["data_dir"]
    evaluation = evaluate(
        saved.model,
        task=task,
        tokenizer=saved.base.tokenizer(),
        trainer=config["trainer"],
        data_dir=Path(data_dir).expanduser() if data_dir else None,
    )
    examples = {split: len(labels) for split, (_, _, labels) in evaluation.splits.items()}
    say(evaluation, task, examples, title=f"{options.adapter} on {task.name}, model {saved.base.name}")
    if options.output is not None:
        about = {"adapter": str(options.adapter), "task": task.name, "model": saved.base.name}
        write(options.output, about | {"metrics": evaluation.metrics, "examples": examples})
    if options.predictions is not None:
        write_text("predictions", options.predictions, predictions_csv(evaluation, task))


def say(evaluation: "Evaluation", task: "TextTask", examples: dict[str, int], *, title: str) -> None:
    """Print a row per metric: its name, its value with all digits, and the number of examples."""
    console().print(title, soft_wrap=True, markup=False, highlight=False)
    table = Table("metric", "value", "examples")
    for name, value in evaluation.metrics.items():
        split = name.rpartition("/")[0] or task.eval_splits[0]
        if name.rpartition("/")[2] in task.metrics or name == "loss":
            table.add_row(name, repr(value), str(examples[split]))
    if table.rows:
        console().print(table)
    for split, (_, _, labels) in evaluation.splits.items():
        if are_hidden(labels.numpy()):
            text = f"{split}: {len(labels)} examples without labels, hence no metrics; --predictions FILE writes them"
            console().print(text, highlight=False)
    if evaluation.metrics["collapsed"]:
        console().print("all predictions are equal, or a logit is not finite", highlight=False)


def write(path: Path, content: dict[str, Any]) -> None:
    """Write scores as JSON, which has no numbers that are not finite: they become null."""
    finite = {name: value if math.isfinite(value) else None for name, value in content["metrics"].items()}
    write_text("output", path, json.dumps(content | {"metrics": finite}, indent=1) + "\n")


def write_text(option: str, path: Path, text: str) -> None:
    """Write the file of an option; raise a ValueError if it cannot be written."""
    try:
        write_atomically(path, text)
    except OSError as error:
        raise ValueError(f"`--{option}` (={path}) cannot be written ({error.strerror})") from error


def predictions_csv(evaluation: "Evaluation", task: "TextTask") -> str:
    """Return split, idx, label, prediction (class names or scores) and logits of every example as CSV.

    Hidden labels are empty.
    """
    from xlora_bench.training.loop.evaluation import predictions  # noqa: PLC0415 - slow to import

    frame = predictions([evaluation]).drop(columns="epoch")
    names = task.labels
    if names is not None:
        for column in ("label", "prediction"):
            frame[column] = [names[number] if number >= 0 else None for number in frame[column]]
    return csv(frame)
