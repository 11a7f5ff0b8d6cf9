"""Load the model of a trained run, for inspection, merging or export."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from torch import nn

from xlora_bench.inject.head_names import head_module_names
from xlora_bench.inject.methods import as_method
from xlora_bench.runs import seeds
from xlora_bench.runs.record import OLD_COMMIT, SCHEMA, Record
from xlora_bench.training.loop.trained_state import load_trained
from xlora_bench.training.trust import parts_from_record

GROUPS = ("model", "adapter", "init_scheme", "targets", "task")
"""The config groups that the model of a run depends on."""


def load_run(folder: Path | str, *, epoch: Literal["last", "best"] = "last", trust: Sequence[str] = ()) -> nn.Module:
    """Return the adapted model of the run in `folder` (`multirun/runs/<id>`) after its last or its best epoch.

    The result can be passed to `inject.merge`, `inject.remove(model, merged=True)` and `xlora_bench.export_peft`.
    The record may name classes of this package, and of your own modules listed in `trust`.

    Raises:
        ValueError: if the folder has no record of schema `SCHEMA`, the record names other classes, or the saved tensors
            are not those of the recorded variant.
    """
    folder = Path(folder)
    record = record_in(folder)
    parts = parts_from_record(record.config, GROUPS, of=str(folder / "record.json"), trust=trust)
    return with_trained_adapter(base_of(record, parts), folder, record, parts, epoch=epoch)


def record_in(folder: Path) -> Record:
    """Return the record in `folder`; raise a ValueError if it is of an older schema."""
    record = Record.read(folder / "record.json")
    if record.schema != SCHEMA:
        raise ValueError(
            f"{folder / 'record.json'} has schema {record.schema}; load it with the code of commit {OLD_COMMIT}, "
            "or train the run again"
        )
    return record


def base_of(record: Record, parts: Mapping[str, Any]) -> nn.Module:
    """Return the pretrained model `parts["model"]` with the head that the run started from."""
    seed = seeds.derive(record.seed, "head")
    model: nn.Module = parts["model"].load(num_labels=parts["task"].num_labels, seed=seed)
    return model


def with_trained_adapter(
    model: nn.Module, folder: Path, record: Record, parts: Mapping[str, Any], *, epoch: Literal["last", "best"]
) -> nn.Module:
    """Adapt the base `model` as recorded, and load what the run in `folder` trained."""
    heads = [model.get_submodule(name) for name in head_module_names(model)]
    adapted: nn.Module = as_method(parts["adapter"]).apply(
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
