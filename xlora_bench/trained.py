"""The model of a trained cell, for inspection, merging or export."""

from pathlib import Path
from typing import Literal

from hydra.utils import instantiate
from torch import nn

from xlora_bench import seeds
from xlora_bench.models.head import head_module_names
from xlora_bench.results.record import Record
from xlora_bench.training.state import load_trained


def load_cell(folder: Path | str, *, epoch: Literal["last", "best"] = "last") -> nn.Module:
    """Return the adapted model of the cell in `folder` (`multirun/cells/<id>`) after its last or its best epoch.

    `inject.merge`, `inject.remove(model, merged=True)` and `exchange.export_peft` take it from there.

    Raises:
        ValueError: if the folder holds no record, or the saved tensors are not those of the recorded variant.
    """
    folder = Path(folder)
    record = Record.read(folder / "record.json")
    parts = {name: instantiate(record.config[name]) for name in ("model", "adapter", "init_scheme", "targets", "task")}
    model = parts["model"].load(num_labels=parts["task"].num_labels, seed=seeds.derive(record.seed, "head"))
    heads = [model.get_submodule(name) for name in head_module_names(model)]
    adapted: nn.Module = parts["adapter"].apply(
        model,
        targets=parts["targets"],
        init_scheme=parts["init_scheme"],
        seed=seeds.derive(record.seed, "adapter"),
        total_steps=1,
    )
    for head in heads:
        head.requires_grad_(True)
    load_trained(adapted, folder / ("adapter.safetensors" if epoch == "last" else "adapter_best.safetensors"))
    return adapted.eval()
