"""Validation of a whole config: every group and key, all faults together, before anything is loaded."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le, Lt, MinLen
from hydra.errors import InstantiationException
from hydra.utils import get_class

from xlora_bench.runs.config_folder import CONFIGS
from xlora_bench.system.options import (
    Count,
    NaturalNumber,
    NonNegative,
    OptionsError,
    describe,
    fault,
    matches_annotation,
    near,
    option_faults,
)
from xlora_bench.training.budget.options import Budget
from xlora_bench.training.loggers import LightningLogs, RunLogs
from xlora_bench.training.loggers.run_logs import logger_faults
from xlora_bench.training.trust import BASES, SEVERAL, called_faults, nodes_of, part_of

PARTS = ("model", "adapter", "init_scheme", "targets", "task", "optimizer", "scheduler")
"""The config groups that make a run; each names a class of plain options."""
GROUPS = (*PARTS, "trainer", "logger")
"""All config groups that a config must have; `callbacks` may be missing."""
Precision = Literal["32-true", "64-true", "16-true", "bf16-true", "16-mixed", "bf16-mixed"]


@dataclass(kw_only=True)
class TrainerOptions:
    """The options of `lightning.Trainer` that a run may set, and `tf32`, which is ours."""

    max_epochs: Count
    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"] = "auto"
    devices: Count = 1
    precision: Precision = "32-true"
    tf32: bool | None = None
    accumulate_grad_batches: Count = 1
    gradient_clip_val: NonNegative | None = None
    gradient_clip_algorithm: Literal["norm", "value"] | None = None
    deterministic: bool | Literal["warn"] | None = None
    benchmark: bool | None = None
    detect_anomaly: bool = False
    log_every_n_steps: NaturalNumber = 10
    enable_progress_bar: bool | None = None
    enable_model_summary: bool = False
    enable_checkpointing: Literal[False] = False
    num_sanity_val_steps: Annotated[int, Ge(0), Le(0)] = 0
    default_root_dir: str | None = None
    profiler: Literal["simple", "advanced"] | None = None
    callbacks: Sequence[Mapping[str, Any]] | None = None


TRAINER_REASONS = {
    "logger": "is not an option of the trainer here; choose one with logger=csv or logger=[csv,wandb]",
    "enable_checkpointing": "must be false: every run writes its own checkpoint after each epoch",
    "num_sanity_val_steps": "must be 0: a sanity check would count as an evaluation",
    "fast_dev_run": "is refused: a run of one batch would be recorded as completed; use task.max_train_rows",
    "max_steps": "is refused: schedule and evaluation go by epochs; use trainer.max_epochs or task.max_train_rows",
    "min_steps": "is refused: schedule and evaluation go by epochs; use trainer.max_epochs",
    "max_time": "is refused: results would depend on the machine; use trainer.max_epochs",
    "overfit_batches": "is refused: use task.max_train_rows",
    "limit_train_batches": "is refused: use task.max_train_rows",
    "limit_val_batches": "is refused: every evaluation is of all rows; use task.max_eval_rows",
    "check_val_every_n_epoch": "is refused: every epoch is evaluated",
    "val_check_interval": "is refused: every epoch is evaluated",
    "strategy": "is refused: trainer.devices=2 trains a run on two devices by a strategy of its own",
    "num_nodes": "is refused: a run trains on the devices of one machine; a sweep may use several (hydra/launcher)",
}
"""Options of Lightning's trainer that a run may not set, or not to every value, and why."""


@dataclass(kw_only=True)
class Monitor:
    """The node `monitor`."""

    every_n_steps: Count


@dataclass(kw_only=True)
class Paths:
    """The node `paths`."""

    results_dir: Annotated[str, MinLen(1)]
    cache_dir: Annotated[str, MinLen(1)]
    data_dir: Annotated[str, MinLen(1)] | None = None


@dataclass(kw_only=True)
class Sweep:
    """The node `sweep`."""

    skip_invalid: bool = False


@dataclass(kw_only=True)
class TopLevel:
    """The keys of a config beside its groups; `grid`, `tuning` and `paper` are for sweeps, which check them."""

    seed: Annotated[int, Ge(0), Lt(2**32)]
    rerun: bool = False
    start_from: Annotated[Sequence[str], MinLen(1)] | None = None
    monitor: Mapping[str, Any]
    paths: Mapping[str, Any]
    callbacks: Any = None
    budget: Mapping[str, Any] | None = None
    sweep: Mapping[str, Any] | None = None
    grid: Any = None
    tuning: Any = None
    paper: Any = None


GroupCheck = Callable[[str, Any], tuple[Any, list[str]]]
"""The form of `check_group`."""
KEYS = {*GROUPS, *(field.name for field in fields(TopLevel))}
"""Every top-level key of a config."""


def check_config(config: Mapping[str, Any], check: GroupCheck | None = None) -> tuple[dict[str, Any], list[str]]:
    """Return the objects that the groups of a plain `config` name, and a line for each fault.

    Nothing is loaded: the objects hold options. A group with a fault has no object. `check`: by default `check_group`.
    """
    check = check or check_group
    faults = top_level_faults(config)
    parts: dict[str, Any] = {}
    for group in (*GROUPS, "callbacks"):
        if (group in GROUPS and group in config) or config.get(group) is not None:
            part, group_faults = check(group, config[group])
            faults += group_faults
            if part is not None:
                parts[group] = part
    return parts, faults


def top_level_faults(config: Mapping[str, Any]) -> list[str]:
    """Return the faults of the keys beside the groups."""
    unknown = [key for key in config if key not in KEYS]
    faults = [f"`{key}` is not a key of the config; {near(key, KEYS)}" for key in unknown]
    faults += [f"`{group}` is missing: choose {group}={choices_text(group)}" for group in GROUPS if group not in config]
    if isinstance(config.get("seed"), list):
        faults.append(fault("seed", config["seed"], "must be a whole number; several seeds need -m and seed=0,1"))
        config = {key: value for key, value in config.items() if key != "seed"} | {"seed": 0}
    rest = {key: value for key, value in config.items() if key in KEYS and key not in GROUPS}
    faults += option_faults(TopLevel, rest, group="")
    for name, kind in (("monitor", Monitor), ("paths", Paths), ("budget", Budget), ("sweep", Sweep)):
        node = config.get(name)
        if isinstance(node, Mapping):
            faults += option_faults(kind, node, group=name)
    return faults


def check_group(group: str, node: Any) -> tuple[Any, list[str]]:
    """Return the object that a group names, and its faults; trainer and callbacks are made later, by `prepare`.

    That of the group `logger` is a mapping: the options of each logger by its path.
    """
    if group in SEVERAL:
        return check_several(group, node)
    if not isinstance(node, Mapping) or not isinstance(node.get("_target_"), str):
        return None, [fault(group, node, f"must be one choice of the group: {choices_text(group)}")]
    options = plain_options(node)
    called = {key: value for key, value in node.items() if (group, key) != ("trainer", "callbacks")}  # they have a base
    faults = target_faults(group, called, BASES[group])
    if not faults and group == "trainer":
        faults = trainer_faults(options)
    elif not faults and not is_of_torch(kind := get_class(node["_target_"])):
        faults = option_faults(kind, options, group=group)
    if faults or group == "trainer":
        return None, faults
    try:
        return part_of(node), []
    except OptionsError as error:
        return None, error.faults
    except InstantiationException as error:
        return None, str(error.__cause__ or error).splitlines()


def checked_part(group: str, node: Any) -> Any:
    """Return the object that a group names.

    Raises:
        OptionsError: if the node has a fault.
    """
    part, faults = check_group(group, node)
    if faults:
        raise OptionsError(faults)
    return part


def is_of_torch(kind: type) -> bool:
    """Return whether a class is an optimizer or schedule of torch, whose options `part_of` checks."""
    return issubclass(kind, (BASES["optimizer"][1], BASES["scheduler"][1]))


def check_several(group: str, node: Any) -> tuple[dict[str, RunLogs] | None, list[str]]:
    """Return the loggers of a config, and the faults of its loggers or callbacks."""
    faults: list[str] = []
    loggers: dict[str, RunLogs] = {}
    for path, entry in nodes_of(group, node).items():
        if not isinstance(entry, Mapping) or not isinstance(entry.get("_target_"), str):
            rule = f"must be a mapping with a `_target_`, as in the choices {choices_text(group)}"
            wrong = [fault(path, entry, rule)]
        elif not (wrong := target_faults(path, entry, BASES[group])):
            kind, options = get_class(entry["_target_"]), plain_options(entry)
            check = logger_faults if group == "logger" else callback_faults
            wrong = check(path, kind, options)
            if group == "logger" and not wrong:
                own = issubclass(kind, RunLogs)
                loggers[path] = kind(**options) if own else LightningLogs(kind=kind, options=options)
        faults += wrong
    return (loggers if group == "logger" and not faults else None), faults


def plain_options(node: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a node, without the keys of Hydra."""
    return {key: value for key, value in node.items() if not str(key).startswith("_")}


def target_faults(path: str, node: Mapping[str, Any], bases: tuple[type, ...]) -> list[str]:
    """Return the faults of what a node would call, or that its class is named by the path of its module."""
    if private := private_path(node["_target_"]):
        return [fault(f"{path}._target_", node["_target_"], f"is a private path: write {private}")]
    return called_faults(path, node, bases)


def trainer_faults(options: Mapping[str, Any]) -> list[str]:
    """Return the faults of the trainer's options."""
    faults = []
    for key, value in options.items():
        annotation = TrainerOptions.__annotations__.get(key)
        if annotation is not None and matches_annotation(annotation, value):
            continue
        if key in TRAINER_REASONS:
            faults.append(fault(f"trainer.{key}", value, TRAINER_REASONS[key]))
        elif annotation is not None:
            faults.append(fault(f"trainer.{key}", value, f"must be {describe(annotation)}"))
        else:
            rule = f"is not an option here; {near(key, TrainerOptions.__annotations__)}"
            faults.append(fault(f"trainer.{key}", value, rule))
    if "max_epochs" not in options:
        faults.append(f"`trainer.max_epochs` is missing: it must be {describe(Count)}")
    _, wrong = check_several("callbacks", options.get("callbacks"))
    return faults + [line.replace("`callbacks", "`trainer.callbacks", 1) for line in wrong]


def callback_faults(path: str, kind: type, options: Mapping[str, Any]) -> list[str]:
    """Return the faults of the options of a callback."""
    return option_faults(kind, options, group=path)


def private_path(target: str) -> str | None:
    """Return the public name of a class of this package that `target` names by the path of its module."""
    package, _, rest = target.partition(".")
    name = target.rpartition(".")[2]
    return (
        f"xlora_bench.{name}"
        if package == "xlora_bench" and "." in rest and hasattr(import_module("xlora_bench"), name)
        else None
    )


def choices_text(group: str) -> str:
    """Return the choices that come with the package."""
    return ", ".join(sorted(path.stem for path in Path(CONFIGS / group).glob("[!_]*.yaml")))
