"""Time to build an adapter whose init is computed from the pretrained weights, against peft.

    python -m benchmarks.init

The model has the size of roberta-base and random weights. Their flat spectra are the hard case of a decomposition. LoRA
with r = 8 is on q,v (24 matrices of 768 x 768) and on all linear layers (24 of 768 x 3072 besides). In the `first run`
the decompositions are computed and written to the cache. In the `next run` they are read from it, as they are for every
other seed, task and rank below 64. Ratios are to peft's `pissa`, which computes the decompositions in every run.
"""

import copy
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pandas as pd
import peft
import torch
import transformers
from torch import nn

from benchmarks.models import RANK, TARGETS, module_names
from benchmarks.options import parser, started
from benchmarks.tables import publish
from benchmarks.timing import interleaved, ratios
from xlora_bench import inject
from xlora_bench.adapters import LoRA
from xlora_bench.adapters.decompositions.disk_cache import disk_cache
from xlora_bench.adapters.decompositions.factorizations import svd
from xlora_bench.adapters.init_schemes import InitScheme, KaimingInit, LDUInit, QRInit, SVDInit
from xlora_bench.inject.targets import Targets

INITS: dict[str, InitScheme] = {
    "svd_both (PiSSA)": SVDInit(sigma="both"),
    "svd_left": SVDInit(sigma="left"),
    "svd_right": SVDInit(sigma="right"),
    "svd_nosigma": SVDInit(sigma="dropped"),
    "svd_minor (MiLoRA)": SVDInit(part="minor"),
    "qr (OLoRA)": QRInit(),
    "ldu": LDUInit(),
}
RUNS = ("first run", "next run")
REFERENCE = "peft pissa"
Work = Callable[[nn.Module], object]


def main() -> None:
    """Write `init.md` and `init.csv`."""
    arguments = parser(__doc__, rounds=2)
    arguments.add_argument("--layers", type=int, default=12, help="of the model (%(default)s)")
    arguments.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS), help="(%(default)s)")
    options = started(arguments)
    model = roberta(layers=options.layers)
    svd(torch.eye(4))  # the first decomposition imports scipy
    frames = []
    for targets in options.targets:
        with tempfile.TemporaryDirectory() as folder:
            seconds = interleaved(
                contenders(targets, Path(folder)),
                [model] * options.rounds,
                warm=0,
                clock=options.clock,
                prepare=partial(prepared, folder=Path(folder)),
            )
        frames.append(ratios(seconds, reference=REFERENCE).rename_axis("init").reset_index().assign(targets=targets))
    frame = pd.concat(frames)[["targets", "init", "ms", "ratio", "low", "high", "n"]]
    publish("init", frame, title="Adapter construction", notes=__doc__.split("\n\n", 2)[2], folder=options.results)


def roberta(*, layers: int) -> nn.Module:
    """Return a random model with the shapes of roberta-base, except a small vocabulary, which is not used here."""
    config = transformers.RobertaConfig(vocab_size=1000, num_hidden_layers=layers, num_labels=2)
    return transformers.RobertaForSequenceClassification(config)


def contenders(targets: str, folder: Path) -> dict[str, Work]:
    """Return by name what adds an adapter to a model; the next run of an init comes after its first run."""
    works = {f"peft {name}": pefts(name, targets=targets) for name in ("pissa", "pissa_niter_4", "olora")}
    works["peft lora"] = pefts(True, targets=targets)
    works["ours lora"] = ours(KaimingInit(), folder, targets=targets)
    for name, init in INITS.items():
        for run in RUNS:
            works[f"ours {name}, {run}"] = ours(init, folder / name, targets=targets)
    return works


def prepared(name: str, model: nn.Module, *, folder: Path) -> nn.Module:
    """Return a copy of the model; for a first run, empty the cache."""
    init, _, run = name.removeprefix("ours ").partition(", ")
    if run == RUNS[0]:
        shutil.rmtree(folder / init, ignore_errors=True)
    return copy.deepcopy(model)


def pefts(init: str | bool, *, targets: str) -> Work:
    """Return what adds peft's LoRA to a model."""

    def build(model: nn.Module) -> None:
        config = peft.LoraConfig(
            r=RANK, lora_alpha=16, target_modules=module_names(model, targets), init_lora_weights=init
        )
        peft.get_peft_model(model, config)

    return build


def ours(init: InitScheme, folder: Path, *, targets: str) -> Work:
    """Return what adds our LoRA to a model, with `folder` as the cache."""

    def build(model: nn.Module) -> None:
        with disk_cache(folder):
            inject.inject(model, LoRA(rank=RANK), targets=Targets(modules=TARGETS[targets]), init_scheme=init)

    return build


if __name__ == "__main__":
    main()
