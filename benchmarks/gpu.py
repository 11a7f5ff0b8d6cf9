"""Runs per hour on one GPU, by precision and by the number of runs that share it, against Trainer with peft.

    python -m benchmarks.gpu                 # bert-base, 1, 2, 4 and 8 runs at the same time, fp32, TF32 and bf16
    python -m benchmarks.gpu --device cpu    # the same program with tiny sizes, to try it where no GPU is

`ours` is one command that trains `--runs` seeds of LoRA (r = 8 on query, key and value) with
`hydra.launcher.runs_per_device`, without caches and results. `Trainer` is one process per run, one after the other
(`benchmarks/baseline_trainer.py`): the same rows, order of batches, steps and schedule; batches are padded to their
longest row. The mean time of `--baseline-runs` of them counts. Both times have imports and model loading in them, ours
also its table. The model has random weights in the size of bert-base unless `--model` names another. `peak MiB` is the
memory in use on the whole card, read twice a second; on a CPU it is that of all processes. The energy is the mean power
of the card times the time. Numbers are empty where a sweep failed or the driver tells nothing. On a CPU `together` is
the number of workers.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
import transformers

from benchmarks.options import parser, started
from benchmarks.sweeps import WORK, Grid, frame_of, measured
from benchmarks.tables import RESULTS, log, publish
from xlora_bench.cli.exit_codes import COLLAPSED
from xlora_bench.data.datamodule import EpochSampler
from xlora_bench.models.pretrained import Pretrained
from xlora_bench.sweeps.launchers.placement import count_cores, visible_devices

PRECISIONS = {
    "fp32": ("trainer.precision=32-true",),
    "tf32": ("trainer.precision=32-true", "trainer.tf32=true"),
    "bf16": ("trainer.precision=bf16-mixed",),
}
SIZES: dict[str, dict[str, Any]] = {
    "cuda": {"rows": 2000, "runs": 16, "together": [1, 2, 4, 8], "layers": 12, "width": 768},
    "cpu": {"rows": 32, "runs": 2, "together": [1, 2], "layers": 1, "width": 64},
}
QUERY = ("nvidia-smi", "--query-gpu=memory.used,power.draw", "--format=csv,noheader,nounits", "-lms", "500")


class Card(NamedTuple):
    """What the driver tells of a command: MiB in use at the peak and watts on average; NaN if nothing."""

    peak_mib: float
    watts: float


def main() -> None:
    """Write `gpu/<card>.md` and `.csv`; without a GPU, `.bench/gpu/cpu.md`."""
    options = parse()
    if options.device == "cuda":
        os.environ |= {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": visible_devices()[0]}
    model = options.model or str(random_model(options.layers, options.width))
    rows = []
    for precision in options.precisions:
        theirs = baseline(options, model, precision)
        rows.append(theirs)
        rows += [ours(options, model, precision, together) for together in options.together]
        for row in rows[-len(options.together) - 1 :]:
            row["relative"] = row["runs per hour"] / theirs["runs per hour"]
    card = torch.cuda.get_device_name() if options.device == "cuda" else "cpu"
    name = re.sub(r"\W+", "_", card.lower()).strip("_")
    size = f"{options.layers} layers of width {options.width}, random weights"
    setup = f"{card}; {options.model or size}; {options.rows} rows, batches of 32, {options.runs} runs."
    notes = f"{setup}\n\n{__doc__.split(chr(10) * 2, 2)[2]}"
    publish(name, pd.DataFrame(rows), title=f"Runs per hour: {card}", notes=notes, folder=options.results)


def parse() -> argparse.Namespace:
    """Return the options; say in one line what is not measured without a GPU."""
    arguments = parser(__doc__, rounds=1)
    arguments.add_argument("--device", choices=["auto", "cuda", "cpu"], default="auto", help="(%(default)s)")
    arguments.add_argument("--model", help="a folder or an id on the Hub (random weights)")
    arguments.add_argument("--precisions", nargs="+", choices=PRECISIONS, help="(all; no tf32 on the CPU)")
    arguments.add_argument("--together", type=int, nargs="+", help="runs at the same time")
    arguments.add_argument("--baseline-runs", type=int, default=2, help="(%(default)s)")
    for name in ("rows", "runs", "layers", "width"):
        arguments.add_argument(f"--{name}", type=int, help=" or ".join(f"{SIZES[on][name]} on {on}" for on in SIZES))
    options = started(arguments)
    if options.device == "auto":
        options.device = "cuda" if torch.cuda.is_available() else "cpu"
    for name, value in SIZES[options.device].items():
        setattr(options, name, getattr(options, name) or value)
    if options.device == "cpu":
        options.precisions = [name for name in options.precisions or PRECISIONS if name != "tf32"]
        options.together = [together for together in options.together if together <= count_cores()]
        if options.results == RESULTS:
            options.results = WORK
        log.info("on the CPU with tiny sizes; not run: the GPU, TF32, bert-base, 4 and 8 runs at the same time")
    options.precisions = options.precisions or list(PRECISIONS)
    options.results = options.results / "gpu"
    return options


def random_model(layers: int, width: int) -> Path:
    """Return the folder of a BERT with random weights and minilm's tokenizer, whose vocabulary is that of bert-base."""
    folder = WORK / f"bert-{layers}x{width}"
    if not (folder / "config.json").exists():
        tokenizer = Pretrained(name="embedded/minilm").tokenizer()
        heads = max(1, width // 64)
        config = transformers.BertConfig(
            vocab_size=len(tokenizer),
            num_hidden_layers=layers,
            hidden_size=width,
            num_attention_heads=heads,
            intermediate_size=4 * width,
        )
        tokenizer.save_pretrained(folder)
        transformers.BertModel(config).save_pretrained(folder)
    return folder


def ours(options: argparse.Namespace, model: str, precision: str, together: int) -> dict[str, Any]:
    """Return the row of our sweep with so many runs at the same time."""
    on_gpu = options.device == "cuda"
    with tempfile.TemporaryDirectory(dir=WORK) as folder:
        overrides = [
            *("-m", "model=minilm", f"model.name={model}", "adapter=lora", "adapter.rank=8", "adapter.alpha=8"),
            *("targets.modules=[query,key,value]", f"seed=range({options.runs})"),
            *(f"task={grid_of(options).task}", f"task.max_train_rows={options.rows}", "task.batch_size=32"),
            *([f"paths.data_dir={options.data_dir.resolve()}"] if options.data_dir else []),
            *("trainer.max_epochs=1", "optimizer.lr=1e-3", f"trainer.accelerator={'gpu' if on_gpu else 'cpu'}"),
            *PRECISIONS[precision],
            *("hydra/launcher=parallel", f"hydra.launcher.{'runs_per_device' if on_gpu else 'workers'}={together}"),
            *(f"paths.results_dir={folder}/results", f"paths.cache_dir={folder}/cache"),
        ]
        command = [sys.executable, "-m", "xlora_bench", *overrides]
        row = measured_row(options, command, runs=options.runs)
        records = [json.loads(path.read_text()) for path in Path(folder).glob("results/runs/*/record.json")]
    if len([record for record in records if record["metrics"]["history"]]) != options.runs:  # each has an epoch
        row = dict.fromkeys(row, float("nan"))
    return {"what": "ours", "precision": precision, "together": together, **row}


def baseline(options: argparse.Namespace, model: str, precision: str) -> dict[str, Any]:
    """Return the row of Trainer with peft, one process per run."""
    train, evaluation = grid_of(options).splits()
    with tempfile.TemporaryDirectory(dir=WORK) as folder:
        frame_of(train).iloc[list(EpochSampler(len(train), seed=0))].to_parquet(f"{folder}/train.parquet")
        frame_of(evaluation).to_parquet(f"{folder}/validation.parquet")
        command = [sys.executable, "-m", "benchmarks.baseline_trainer", "--rows", folder, "--out", f"{folder}/out.json"]
        command += ["--model", model, "--precision", precision, *(["--cpu"] if options.device == "cpu" else [])]
        rows = [measured_row(options, command, runs=1) for _ in range(options.baseline_runs)]
    return {"what": "Trainer", "precision": precision, "together": 1, **pd.DataFrame(rows).mean().to_dict()}


def grid_of(options: argparse.Namespace) -> Grid:
    """Return the task and the rows."""
    return Grid(rows=options.rows, data_dir=options.data_dir)


def measured_row(options: argparse.Namespace, command: list[str], *, runs: int) -> dict[str, float]:
    """Run a command that trains so many runs; return what it cost, NaN if it failed."""
    readings: list[Card] = []
    try:
        with watched(options.device, readings):
            # random weights may give every row the same class: such runs count, because they train to their end
            spent = measured(command, log_to=WORK / "gpu.log", codes=(0, COLLAPSED))
    except RuntimeError as error:
        log.warning("not measured: %s", error)
        return dict.fromkeys(("seconds", "runs per hour", "peak MiB", "Wh per run"), float("nan"))
    (card,) = readings
    peak = card.peak_mib if options.device == "cuda" else spent.peak_bytes / 2**20
    return {
        "seconds": spent.seconds,
        "runs per hour": 3600 * runs / spent.seconds,
        "peak MiB": peak,
        "Wh per run": card.watts * spent.seconds / 3600 / runs,
    }


@contextmanager
def watched(device: str, readings: list[Card]) -> Iterator[None]:
    """Let the driver read memory and power of the card meanwhile; add one `Card` to `readings` at the end."""
    if device != "cuda" or shutil.which(QUERY[0]) is None:
        yield
        readings.append(Card(float("nan"), float("nan")))
        return
    with tempfile.TemporaryFile("w+") as file:
        card = os.environ["CUDA_VISIBLE_DEVICES"]
        with subprocess.Popen([*QUERY, "-i", card], stdout=file, stderr=subprocess.DEVNULL) as process:
            try:
                yield
            finally:
                process.terminate()
        file.seek(0)
        readings.append(card_of(file.read()))


def card_of(text: str) -> Card:
    """Return the summary of the driver's lines, `MiB, watts` each; a field that is not a number is NaN."""
    lines = [line.split(",") for line in text.splitlines() if line.count(",") == 1]
    frame = pd.DataFrame(lines, columns=["mib", "watts"]).apply(pd.to_numeric, errors="coerce")
    return Card(float(frame["mib"].max()), float(frame["watts"].mean()))


if __name__ == "__main__":
    main()
