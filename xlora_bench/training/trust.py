"""Trust: check which classes and options a record names, so that a record file cannot run arbitrary code."""

import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import lightning
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate

from xlora_bench.adapters import Adapter
from xlora_bench.adapters.init_schemes import InitScheme
from xlora_bench.data.task import TextTask
from xlora_bench.inject.methods import Method
from xlora_bench.inject.targets import Targets
from xlora_bench.models.pretrained import Pretrained
from xlora_bench.training.loggers import CSVLogs, WandbLogs
from xlora_bench.training.loop.optimizers import AdamW, Schedule

PACKAGE = "xlora_bench"
BASES: dict[str, tuple[type, ...]] = {
    "model": (Pretrained,),
    "adapter": (Adapter, Method),
    "init_scheme": (InitScheme,),
    "targets": (Targets,),
    "task": (TextTask,),
    "optimizer": (AdamW, torch.optim.Optimizer),
    "scheduler": (Schedule,),
    "logger": (CSVLogs, WandbLogs),
    "trainer": (lightning.Trainer,),
}
"""By config group, the base classes of which a recorded class must be a subclass."""
OUTSIDE = {"optimizer": "torch.optim", "trainer": "lightning"}
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
            parts[group] = instantiate(config[group])
        except InstantiationException as error:
            reason = " ".join(str(error.__cause__ or error).split())
            raise ValueError(f"{of}: `{group}` cannot be built: {reason}") from error
    return parts


def check_recorded(config: Mapping[str, Any], groups: Sequence[str], *, of: str, trust: Sequence[str] = ()) -> None:
    """Check that `groups` of a recorded config name accepted classes, with plain options.

    Raises:
        ValueError: otherwise.
    """
    for group in groups:
        node = config.get(group)
        if not isinstance(node, dict):
            raise error_for(of, group, node, f"must be a mapping that names a class; {AGAIN}")
        for key, value in node.items():
            if key != "_target_":
                check_plain(key, value, of=of, path=f"{group}.{key}")
        check_loads_no_code(group, node, of=of)
    for group in groups:  # last: import a user module only if all else is fine
        check_class(group, config[group].get("_target_"), of=of, trust=trust)


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


def check_class(group: str, name: Any, *, of: str, trust: Sequence[str]) -> None:
    """Check that `name` is a class derived from the group's `BASES`, in this package, `OUTSIDE` or a trusted module.

    Raises:
        ValueError: if it is not, or if the module cannot be imported.
    """
    bases, path = BASES[group], f"{group}._target_"
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
