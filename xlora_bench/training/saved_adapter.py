"""The model of a saved adapter: of a run's folder, of a file of `save_adapter`, or of a folder that peft wrote.

Only safetensors and JSON are read, and a file chooses among classes that are known.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Literal

from safetensors import SafetensorError
from torch import nn

from xlora_bench import inject
from xlora_bench.data.task import TextTask
from xlora_bench.inject.heads import linears_of
from xlora_bench.inject.peft_io import import_peft
from xlora_bench.models.pretrained import Pretrained, weights_hash
from xlora_bench.training.load_run import GROUPS, base_of, record_in, with_trained_adapter
from xlora_bench.training.trust import parts_from_record

Epoch = Literal["last", "best"]
RUN_FILES: dict[Epoch, str] = {"last": "adapter.safetensors", "best": "adapter_best.safetensors"}
NAME = "saved"
"""The name under which an adapter is added to the model."""


@dataclass(frozen=True, kw_only=True)
class SavedAdapter:
    """A saved adapter on its base: the adapted `model` in evaluation mode, and the options of the base."""

    model: nn.Module
    base: Pretrained


def load_saved(
    path: Path,
    *,
    task: TextTask,
    base: Pretrained,
    recorded_base: bool = False,
    epoch: Epoch = "last",
    trust: Sequence[str] = (),
    other_base: bool = False,
) -> SavedAdapter:
    """Return the saved adapter at `path` on the pretrained model `base`, with a head for `task`.

    With `recorded_base` a run's folder brings its own base. `epoch` is of a run's folder, too. `trust` lists modules of
    the user whose classes the file may name. `other_base` accepts a base that is not the one that was trained on.

    Raises:
        ValueError: if there is no saved adapter, it cannot be read, has no head for `task`, or is of another base.
    """
    if (path / "record.json").is_file():
        return of_run(
            path, task=task, base=None if recorded_base else base, epoch=epoch, trust=trust, other_base=other_base
        )
    if epoch != "last":
        raise ValueError(f"`--epoch {epoch}` is for the folder of a run; `{path}` holds one adapter")
    if path.is_file():
        check_not_of_a_run(path)
        return of_file(path, task=task, base=base, trust=trust, other_base=other_base)
    if (path / "adapter_config.json").is_file():
        return of_peft(path, task=task, base=base, other_base=other_base)
    raise ValueError(
        f"`{path}` is no saved adapter: give the folder of a run (record.json), a file of save_adapter, or a folder "
        "that peft wrote (adapter_config.json)"
    )


def of_run(
    folder: Path, *, task: TextTask, base: Pretrained | None, epoch: Epoch, trust: Sequence[str], other_base: bool
) -> SavedAdapter:
    """Return the adapter of the run in `folder`, on `base` or (None) on the model of its record."""
    record = record_in(folder)
    parts = parts_from_record(record.config, GROUPS, of=str(folder / "record.json"), trust=trust)
    check_width(parts["task"].num_labels, task, folder)
    if not (folder / RUN_FILES[epoch]).is_file():
        raise ValueError(f"`{folder}` holds no {RUN_FILES[epoch]}: the run is recorded as {record.status}")
    parts["model"] = base or parts["model"]
    model = base_of(record, parts)
    if not other_base and weights_hash(model) != record.hashes.get("weights"):
        keys = ("name", "dtype", "quantization")
        trained = " ".join(str(value) for key in keys if (value := record.config["model"].get(key)) is not None)
        raise ValueError(
            f"`model.name` (={parts['model'].name}) has other weights than the model that run {record.run_id} was "
            f"trained on ({trained}); leave model out to take that one, or pass --other-base"
        )
    try:
        model = with_trained_adapter(model, folder, record, parts, epoch=epoch)
    except (SafetensorError, RuntimeError) as error:  # torch raises the latter for other shapes
        raise ValueError(f"`{folder / RUN_FILES[epoch]}` does not fit: {' '.join(str(error).split())}") from error
    return SavedAdapter(model=model, base=parts["model"])


def of_file(path: Path, *, task: TextTask, base: Pretrained, trust: Sequence[str], other_base: bool) -> SavedAdapter:
    """Return the adapter in a file of `save_adapter` on `base`."""
    for module in trust:
        imported(module)
    model = base.load(num_labels=task.num_labels, seed=0)
    return used(inject.load_adapter(model, path, name=NAME, other_base=other_base), task, path, base)


def of_peft(folder: Path, *, task: TextTask, base: Pretrained, other_base: bool) -> SavedAdapter:
    """Return the LoRA adapter that peft wrote to `folder` on `base`."""
    if not (folder / "adapter_model.safetensors").is_file() and (folder / "adapter_model.bin").is_file():
        raise ValueError(f"`{folder}` holds a pickle, adapter_model.bin, which is not read; save it as safetensors")
    check_base_of_peft(folder, base, other_base=other_base)
    model = base.load(num_labels=task.num_labels, seed=0)
    return used(import_peft(model, folder, name=NAME), task, folder, base)


def used(model: nn.Module, task: TextTask, path: Path, base: Pretrained) -> SavedAdapter:
    """Return the model with its adapter and the adapter's head in use; check that the head is one for `task`."""
    layers = [layer for head in inject.heads(model, NAME).values() for layer in linears_of(head)]
    if not layers:
        raise ValueError(
            f"`{path}` holds no task head, without which there is nothing to score; save the adapter with its head "
            "(ours: `add_adapter`; peft: task_type=SEQ_CLS, or modules_to_save)"
        )
    check_width(layers[-1].out_features, task, path)
    inject.use_adapters(model, NAME)
    return SavedAdapter(model=model.eval(), base=base)


def check_width(outputs: int, task: TextTask, path: Path) -> None:
    """Raise a ValueError unless a head with so many outputs is one for `task`."""
    if outputs != task.num_labels:
        needs = "1 output (regression)" if task.is_regression else f"{task.num_labels} labels"
        raise ValueError(f"the head of `{path}` has {outputs} outputs, but task {task.name!r} needs {needs}")


def check_not_of_a_run(path: Path) -> None:
    """Raise a ValueError if `path` is a run's own file, which has no options: those are in the record beside it."""
    if path.name in RUN_FILES.values() and path.with_name("record.json").is_file():
        raise ValueError(f"`{path}` is part of a run: give its folder, and --epoch best for the best epoch")


def check_base_of_peft(folder: Path, base: Pretrained, *, other_base: bool) -> None:
    """Raise a ValueError if peft's config names another base; the file has no hash of its weights.

    The last part of the name is compared, because the same model has other paths on other machines.
    """
    try:
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        name = config.get("base_model_name_or_path")
    except (OSError, ValueError, AttributeError) as error:
        raise ValueError(f"`{folder}` cannot be read as a peft adapter: {error}") from error
    ours = {last_part(base.name), last_part(base.location())}
    if name and not other_base and last_part(str(name)) not in ours:
        raise ValueError(
            f"`{folder}` was trained on {name}, and `model.name` is {base.name}; give model.name={name}, or pass "
            "--other-base if they are the same model"
        )


def last_part(name: str) -> str:
    """Return the last part of a Hub id or a path, in lower case."""
    return Path(name).name.lower()


def imported(module: str) -> None:
    """Import a module of the user.

    Raises:
        ValueError: if it cannot be imported.
    """
    try:
        import_module(module)
    except ImportError as error:
        raise ValueError(f"`--trust {module}` cannot be imported ({error}); put it on PYTHONPATH") from error
