"""Trust: which classes a config may name, and a record file, which must not run arbitrary code."""

import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pkgutil import resolve_name
from typing import Any

import lightning
from hydra.errors import InstantiationException
from hydra.utils import get_class, instantiate
from lightning.pytorch.loggers import Logger
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from xlora_bench.adapters import Adapter
from xlora_bench.adapters.init_schemes import InitScheme
from xlora_bench.data.task import TextTask
from xlora_bench.inject.methods import Method
from xlora_bench.inject.targets import Targets
from xlora_bench.models.pretrained import Pretrained
from xlora_bench.system.options import OptionsError, fault
from xlora_bench.training.loggers import RunLogs
from xlora_bench.training.loop.optimizers import AdamW, Schedule
from xlora_bench.training.loop.torch_classes import torch_class

PACKAGE = "xlora_bench"
BASES: dict[str, tuple[type, ...]] = {
    "model": (Pretrained,),
    "adapter": (Adapter, Method),
    "init_scheme": (InitScheme,),
    "targets": (Targets,),
    "task": (TextTask,),
    "optimizer": (AdamW, Optimizer),
    "scheduler": (Schedule, LRScheduler),
    "logger": (RunLogs, Logger),
    "callbacks": (lightning.Callback,),
    "trainer": (lightning.Trainer,),
}
"""By config group, the base classes: what a config or a record names must be a subclass of one of them."""
SEVERAL = ("logger", "callbacks")
"""Groups of which a config may have several nodes, by names or in a list."""
OUTSIDE = {
    "optimizer": "torch.optim",
    "scheduler": "torch.optim",
    "logger": "lightning",
    "callbacks": "lightning",
    "trainer": "lightning",
}
"""By config group, the other package whose modules it may name; those are imported already."""
CODE = ("megatron_core", "trust_remote_code")
"""Options under which other libraries import or download code."""
AGAIN = "the program writes no such record, so train the run again from its config"


def parts_from_record(
    config: Mapping[str, Any], groups: Sequence[str], *, of: str, trust: Sequence[str] = ()
) -> dict[str, Any]:
    """Check all `groups` of a recorded config, then build and return their objects.

    `of` is the name of the record in messages. `trust` lists modules of the user whose classes are accepted, too.

    Raises:
        ValueError: if a group is refused, or its options do not fit.
    """
    check_recorded(config, groups, of=of, trust=trust)
    parts = {}
    for group in groups:
        try:
            parts[group] = part_of(config[group])
        except (InstantiationException, OptionsError) as error:
            reason = " ".join(str(error.__cause__ or error).split())
            raise ValueError(f"{of}: `{group}` cannot be built: {reason}") from error
    return parts


def check_recorded(config: Mapping[str, Any], groups: Sequence[str], *, of: str, trust: Sequence[str] = ()) -> None:
    """Check that `groups` of a recorded config name accepted classes, with plain options.

    Raises:
        ValueError: otherwise.
    """
    nodes = [(group, path, node) for group in groups for path, node in nodes_of(group, config.get(group)).items()]
    for group, path, node in nodes:
        if not isinstance(node, dict):
            raise error_for(of, path, node, f"must be a mapping that names a class; {AGAIN}")
        for key, value in node.items():
            if key != "_target_":
                check_plain(key, value, of=of, path=f"{path}.{key}")
        check_loads_no_code(group, node, of=of)
    for group, path, node in nodes:  # last: import a user module only if all else is fine
        check_class(group, node.get("_target_"), of=of, path=path, trust=trust)


def nodes_of(group: str, node: Any) -> dict[str, Any]:
    """Return the nodes of a group by their paths: one, unless it is one of `SEVERAL`, whose null entries count not."""
    if group not in SEVERAL or (isinstance(node, Mapping) and "_target_" in node):
        return {group: node}
    if node is None or isinstance(node, Mapping):
        entries = list((node or {}).items())
    elif isinstance(node, list | tuple):
        entries = list(enumerate(node))
    else:
        return {group: node}
    return {f"{group}.{name}": entry for name, entry in entries if entry is not None}


def part_of(node: Mapping[str, Any]) -> Any:
    """Return the object of a node: of a class of torch what makes it once there are parameters."""
    options = {key: value for key, value in node.items() if not str(key).startswith("_")}
    return torch_class(get_class(node["_target_"]), options) or instantiate(node)


def called_faults(path: str, node: Any, bases: tuple[type, ...]) -> list[str]:
    """Return the faults of what a node of a config would call: its class, and those of the nodes in it.

    Its class must be derived from one of `bases`, those in it from a base of any group. Nothing is called.
    """
    if isinstance(node, Mapping):
        faults = [
            fault(f"{path}.{key}", node[key], "is refused: options go by their names; write them as keys")
            for key in ("_args_", "_partial_")
            if key in node
        ]
        if "_target_" in node:
            faults += class_faults(f"{path}._target_", node["_target_"], bases)
        entries = list(node.items())
    else:
        faults, entries = [], list(enumerate(node)) if isinstance(node, list | tuple) else []
    inner = tuple(dict.fromkeys(base for group in BASES.values() for base in group))
    return faults + [line for name, entry in entries for line in called_faults(f"{path}.{name}", entry, inner)]


def class_faults(key: str, name: Any, bases: tuple[type, ...]) -> list[str]:
    """Return the fault of a `_target_` that is no class, or none derived from one of `bases`."""
    try:
        kind = resolve_name(str(name))
    except Exception as error:
        return [fault(key, name, f"names no class that can be imported ({type(error).__name__}: {error})")]
    if isinstance(kind, type) and issubclass(kind, bases):
        return []
    names = " or ".join(f"{base.__module__.partition('.')[0]}'s {base.__name__}" for base in bases)
    return [fault(key, name, f"must be a class derived from {names}; write one, or choose one of the group")]


def check_plain(key: Any, value: Any, *, of: str, path: str) -> None:
    """Check that an option is plain data: no key special to Hydra or in `CODE`, no interpolation."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else None
    acts = isinstance(key, str) and ((key.startswith("_") and key.endswith("_")) or key in CODE)
    leaf = value is None or (isinstance(value, bool | int | float | str) and "${" not in str(value))
    if acts or not (inner is not None or leaf):
        raise error_for(
            of, path, value, f"is refused: a record holds plain values, nothing to call or to look up; {AGAIN}"
        )
    for name, part in inner or ():
        check_plain(name, part, of=of, path=f"{path}.{name}")


def check_loads_no_code(group: str, node: Mapping[str, Any], *, of: str) -> None:
    """Check the options `model.attention` and `task.hub`, by which a library could load remote code or a pickle."""
    attention, hub = node.get("attention", "sdpa"), node.get("hub") or ()
    if group == "model" and not (isinstance(attention, str) and attention.isidentifier()):
        raise error_for(of, "model.attention", attention, f"is refused: it could name a kernel on the Hub; {AGAIN}")
    if group == "task" and not (isinstance(hub, list | tuple) and len(hub) <= 2):
        raise error_for(of, "task.hub", hub, f"is refused: it may name a data set and its part; {AGAIN}")


def check_class(group: str, name: Any, *, of: str, path: str, trust: Sequence[str]) -> None:
    """Check that `name` is a class derived from the group's `BASES`, in this package, `OUTSIDE` or a trusted module.

    Raises:
        ValueError: if it is not, or if the module cannot be imported.
    """
    bases, path = BASES[group], f"{path}._target_"
    plain = isinstance(name, str) and all(part.isidentifier() for part in name.split("."))
    module, _, last = name.rpartition(".") if plain else ("", "", "")
    try:
        candidate = getattr(located(module, group, trust), last, None)
    except ImportError as error:
        raise error_for(of, path, name, f"cannot be imported ({error}); put its module on PYTHONPATH") from error
    known = (PACKAGE, OUTSIDE.get(group, PACKAGE), *trust)
    if not (isinstance(candidate, type) and issubclass(candidate, bases) and inside(candidate.__module__, known)):
        kind = f"must be a class of {PACKAGE} derived from {' or '.join(base.__name__ for base in bases)}"
        way = f"if it is your own, say so: verify --trust {module}, or load_run(..., trust=({module!r},))"
        raise error_for(
            of, path, name, f"is refused: it {kind}; {AGAIN if not module or inside(module, known) else way}"
        )


def located(module: str, group: str, trust: Sequence[str]) -> Any:
    """Return a module that a record may name, else None; import it only if it is of this package or trusted."""
    if module == PACKAGE or inside(module, trust):
        return import_module(module)
    return sys.modules.get(module) if module and inside(module, [OUTSIDE.get(group, PACKAGE)]) else None


def inside(module: str, names: Sequence[str]) -> bool:
    """Whether `module` is one of the modules `names` or lies in one of them."""
    return any(module == name or module.startswith(f"{name}.") for name in names)


def error_for(of: str, path: str, value: Any, rule: str) -> ValueError:
    """Return the error for the value at `path` of a record."""
    shown = repr(value)
    return ValueError(f"{of}: `{path}` (={shown if len(shown) <= 120 else f'{shown[:117]}...'}) {rule}")
