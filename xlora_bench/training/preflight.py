"""Preflight: everything about a run that can be checked without training it and without loading its weights."""

import copy
import json
import logging
import math
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from xlora_bench.adapters import Adapter
from xlora_bench.adapters.init_schemes import InitScheme
from xlora_bench.adapters.patterns import pattern_value
from xlora_bench.data import hub, synthetic
from xlora_bench.data.corpus import cached_corpus
from xlora_bench.data.task import NOT_TRAINED, TextTask
from xlora_bench.inject.head_names import head_parameter_names
from xlora_bench.inject.methods import Method, Peft
from xlora_bench.inject.targets import Targets, matches
from xlora_bench.models import weight_cache
from xlora_bench.models.checkpoint_files import checkpoint_faults, is_on_disk, meta_classifier
from xlora_bench.models.packed.structure import position_offset
from xlora_bench.models.pretrained import Pretrained
from xlora_bench.system.lru_cache import file_fingerprint
from xlora_bench.system.options import fault, near
from xlora_bench.training.budget.costs import adapter_entries, applied, other_entries, trained_biases
from xlora_bench.training.budget.target_shapes import (
    TargetModule,
    one_of_each_aspect,
    shape_at,
    target_modules_of,
)
from xlora_bench.training.caches import Caches
from xlora_bench.training.devices import batch_norm_faults, device_faults

log = logging.getLogger(__name__)

FREE = 200 << 20
"""Bytes of free disk that a run needs: adapters, predictions, a checkpoint and logs take a few megabytes."""
Parts = Mapping[str, Any]


def preflight(config: Mapping[str, Any], parts: Parts, caches: Caches, *, starts_here: bool = True) -> list[str]:
    """Return a line for each fault of a run whose options were found right; `parts` are its objects.

    A check is made once for all runs that share what it depends on, which never is the seed. A run that is not to start
    on this machine now (`starts_here=False`: a dry run) is not judged by its device, nor by what only the Hub knows.
    """

    model, task, paths = parts["model"], parts["task"], config["paths"]
    if task.train_split is None:
        return [fault("task.train_split", None, f"names nothing to train on (task {task.name}): {NOT_TRAINED}")]
    files = file_fingerprint(Path(model.location()))

    def once(name: str, groups: tuple[str, ...], check: Callable[[], list[str]]) -> list[str]:
        key = (name, files, json.dumps([config[group] for group in groups], sort_keys=True, default=str))
        return [*caches.preflight.get(key, check)]

    has_model = starts_here or is_on_disk(model)
    faults = once("checkpoint", ("model",), lambda: checkpoint_faults(model)) if has_model else []
    if has_model and not faults:
        known = ("model", "task", "targets", "adapter", "init_scheme")
        faults += once("adapter", known, lambda: adapter_faults(meta_classifier(model, task.num_labels), parts))
        faults += once("base", (*known, "trainer"), lambda: base_faults(config["trainer"], parts))
        if config["trainer"].get("devices", 1) > 1:
            faults += once("norms", ("model",), lambda: batch_norm_faults(meta_classifier(model, task.num_labels)))
        if starts_here or not is_on_hub(task, paths):
            faults += once("data", ("model", "task", "paths"), lambda: data_faults(model, task, paths, caches))
    if starts_here:
        faults += once("device", ("trainer",), lambda: device_faults(config["trainer"]))
    return faults + once("disk", ("paths",), lambda: disk_faults(Path(paths["results_dir"]).expanduser()))


def adapter_faults(model: nn.Module, parts: Parts) -> list[str]:
    """Return why the adapter and its init cannot be applied to the targets of `model`, which has no weights."""
    adapter, init_scheme, targets = parts["adapter"], parts["init_scheme"], parts["targets"]
    try:
        if isinstance(adapter, Adapter):
            modules = target_modules_of(model, targets)
            return [*pattern_faults(adapter, modules), *shape_faults(adapter, init_scheme, modules)]
        return method_faults(adapter, model, targets=targets, init_scheme=init_scheme)
    except ValueError as error:
        return [str(error)]


def base_faults(trainer: Mapping[str, Any], parts: Parts) -> list[str]:
    """Return why the base cannot be kept in `model.dtype` and `model.quantization`.

    The trainer may cast all weights to a dtype of its own, the method may train weights of the base, or peft may write
    to them, and the base may have no linear layer.
    """
    options, adapter = parts["model"], parts["adapter"]
    precision, faults = trainer.get("precision", "32-true"), []
    if options.dtype is not None and precision in ("64-true", "16-true", "bf16-true"):
        rule = f"is overruled by trainer.precision={precision}, which casts all weights; use one of the two"
        faults.append(fault("model.dtype", options.dtype, rule))
    if not options.reduces:
        return faults
    model = meta_classifier(options, parts["task"].num_labels)
    linear = [f"{name}.weight" for name, module in model.named_modules() if type(module) is nn.Linear]
    trained = set() if faults else trained_of_base(adapter, model, parts)
    if options.quantization is not None:
        if isinstance(adapter, Peft):
            rule = "is not for methods of peft, some of which write to the base; use an adapter of this package"
            faults.append(fault("model.quantization", options.quantization, rule))
        elif name := next((name for name in linear if name in trained), None):
            rule = f"is for frozen weights, and this method trains {name}"
            faults.append(fault("model.quantization", options.quantization, rule))
        if not set(linear) - head_parameter_names(model):
            rule = f"has no linear layer to quantise in a {type(model).__name__}"
            faults.append(fault("model.quantization", options.quantization, rule))
    if trained and options.dtype in ("bfloat16", "float16"):
        rule = f"is for frozen weights, and this method trains {min(trained)}; use trainer.precision=bf16-mixed"
        faults.append(fault("model.dtype", options.dtype, rule))
    return faults


def trained_of_base(adapter: Adapter | Method, model: nn.Module, parts: Parts) -> set[str]:
    """Return the names of the parameters of the base `model`, on the meta device, that a method trains."""
    if isinstance(adapter, Adapter):
        biases = trained_biases(adapter, model, target_modules_of(model, parts["targets"]))
        return {name for name, parameter in model.named_parameters() if any(parameter is bias for bias in biases)}
    copied, head = copy.deepcopy(model), head_parameter_names(model)
    base = {name: parameter for name, parameter in copied.named_parameters() if name not in head}
    try:
        applied(adapter, copied, targets=parts["targets"], init_scheme=parts["init_scheme"])
    except ValueError:  # `adapter_faults` says it, or only the weights will tell
        return set()
    return {name for name, parameter in base.items() if parameter.requires_grad}


def pattern_faults(adapter: Adapter, modules: list[TargetModule]) -> list[str]:
    """Return the keys of `rank_pattern` and `alpha_pattern` that match no adapted module."""
    names = [module.module_name for module in modules]
    faults = []
    for option in ("rank_pattern", "alpha_pattern"):
        for key, value in getattr(adapter, option).items():
            if not any(matches(key, name) for name in names):
                endings = {name.rpartition(".")[2] for name in names}
                faults.append(
                    fault(f"adapter.{option}.{key}", value, f"matches no adapted module; {near(key, endings)}")
                )
    return faults


def shape_faults(adapter: Adapter, init_scheme: InitScheme, modules: list[TargetModule]) -> list[str]:
    """Return the first weight that the variant cannot adapt, at its rank or from this init scheme."""
    adapter.check_fit(init_scheme)
    for module in modules:
        if pattern_value(adapter.rank_pattern, module.module_name, adapter.rank) != "auto":
            adapter.rank_of(torch.empty(module.out_features, module.in_features, device="meta"), module.module_name)
    for module in one_of_each_aspect(modules):
        try:
            shape_at(adapter, init_scheme, module)
        except ValueError:  # again with the real shape, for its message
            weight = torch.randn(module.out_features, module.in_features, generator=torch.Generator().manual_seed(0))
            try:
                adapter.build(
                    weight,
                    init_scheme=init_scheme,
                    generator=torch.Generator().manual_seed(0),
                    module_name=module.module_name,
                )
            except ValueError as error:
                text = str(error)
                return [text if f"`{module.module_name}`" in text else f"{text} (at `{module.module_name}`)"]
    return []


def method_faults(method: Method, model: nn.Module, *, targets: Targets, init_scheme: InitScheme) -> list[str]:
    """Return why a baseline or a peft method cannot be applied; what needs its weights is not judged."""
    try:
        other_entries(method, lambda: copy.deepcopy(model), targets=targets, init_scheme=init_scheme)
    except ValueError as error:
        return [] if "cannot be counted without its weights" in str(error) else [str(error)]
    return []


def trained_parameters(config: Mapping[str, Any], parts: Parts, caches: Caches) -> int | None:
    """Return the trained entries of a run without its head; None if a rank is solved at the start of the run.

    Also None if the model is not on this machine, or the count needs its weights.
    """
    adapter, targets, init_scheme = parts["adapter"], parts["targets"], parts["init_scheme"]
    rank = getattr(adapter, "rank", None)
    if "auto" in (rank, *getattr(adapter, "rank_pattern", {}).values()) or not is_on_disk(parts["model"]):
        return None

    def count() -> list[int]:
        model = meta_classifier(parts["model"], parts["task"].num_labels)
        try:
            if isinstance(adapter, Adapter):
                return [adapter_entries(adapter, model, targets=targets, init_scheme=init_scheme)(rank or 1)]
            return [other_entries(adapter, lambda: copy.deepcopy(model), targets=targets, init_scheme=init_scheme)]
        except ValueError:
            return []

    groups = [config[group] for group in ("model", "targets", "adapter", "init_scheme")]
    return next(iter(caches.counts.get(json.dumps(groups, sort_keys=True, default=str), count)), None)


def data_faults(model: Pretrained, task: TextTask, paths: Mapping[str, Any], caches: Caches) -> list[str]:
    """Return what is wrong with the rows of a task, or that the Hub which has them does not answer."""
    data_dir = Path(paths["data_dir"]).expanduser() if paths["data_dir"] else None
    try:
        tokenizer = weight_cache.tokenizer(model, caches.tokenizers)
        if faults := length_faults(task, tokenizer, meta_classifier(model, task.num_labels)):
            return faults
        if is_on_hub(task, paths):
            hub.require_hub("/".join(task.hub or ()))
            return []
        cache_dir = Path(paths["cache_dir"]).expanduser()
        corpus = cached_corpus(task, caches.corpora, tokenizer=tokenizer, cache_dir=cache_dir, data_dir=data_dir)
        assert corpus.fingerprint
    except ValueError as error:
        return str(error).splitlines()
    return []


def is_on_hub(task: TextTask, paths: Mapping[str, Any]) -> bool:
    """Return whether the rows of a task come from the Hub."""
    return task.name not in synthetic.GRAMMARS and not paths["data_dir"] and task.hub is not None


def length_faults(task: TextTask, tokenizer: Any, model: nn.Module) -> list[str]:
    """Return that `task.max_length` leaves no room for text, or is more than tokenizer or model can take."""
    texts = len(task.text_columns)
    least = tokenizer.num_special_tokens_to_add(pair=texts == 2) + texts
    most = min(tokenizer.model_max_length, positions(model))
    if task.max_length < least:
        rule = f"must be at least {least}: the special tokens of this model, and one token of each text"
    elif task.max_length > most:
        rule = f"must be at most {most}, the limit of this model and its tokenizer"
    else:
        return []
    return [fault("task.max_length", task.max_length, rule)]


def positions(model: nn.Module) -> float:
    """Return the number of tokens for which a model has position embeddings; infinity if it has no such table."""
    tables = [
        module.num_embeddings
        for name, module in model.named_modules()
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding)
    ]
    return min(tables) - position_offset(model) if tables else math.inf


def disk_faults(folder: Path) -> list[str]:
    """Return that the disk of the results folder is full."""
    there = next((parent for parent in (folder, *folder.absolute().parents) if parent.is_dir()), None)
    if there is None or (free := shutil.disk_usage(there).free) >= FREE:
        return []
    rule = f"has {free >> 20} MiB of free disk; a run needs at least {FREE >> 20}: free some, or choose another folder"
    return [fault("paths.results_dir", str(folder), rule)]


def run_warnings(config: Mapping[str, Any], *, steps: int | None) -> list[str]:
    """Return what will disappoint: too few optimizer steps to learn from, a learning rate that is far from usual."""
    lines = []
    if steps is not None and steps < FEW_STEPS:
        lines.append(
            f"only {steps} optimizer steps: raise trainer.max_epochs or task.max_train_rows, or lower task.batch_size"
        )
    lr, target = config["optimizer"].get("lr"), str(config["adapter"]["_target_"])
    low, high = USUAL_RATES_OF_WEIGHTS if target.endswith(".Baseline") else USUAL_RATES
    if isinstance(lr, int | float) and not low <= lr <= high:
        lines.append(f"`optimizer.lr` (={lr:g}) is outside {low:g} to {high:g}, where rates of this method usually are")
    return lines


FEW_STEPS = 50
USUAL_RATES = (1e-5, 1e-1)
USUAL_RATES_OF_WEIGHTS = (1e-6, 1e-2)
"""Learning rates of AdamW in the papers of `conf/paper/`, for adapters and for the pretrained weights themselves."""
