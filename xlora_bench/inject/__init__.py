"""Inject adapters into a model; activate, merge, save, load and remove them."""

from xlora_bench.inject.activation import disable, disabled, enable, route, use_adapters
from xlora_bench.inject.adding import add_adapter, inject
from xlora_bench.inject.checkpoint import load_adapter, save_adapter
from xlora_bench.inject.heads import new_head
from xlora_bench.inject.merging import merge, remove, remove_adapter, rename_adapter, requires_grad_, unmerge
from xlora_bench.inject.query import (
    DEFAULT,
    adapted_layers,
    adapted_pairs,
    adapter_names,
    adapter_parameters,
    deltas,
    heads,
    parameter_count,
    replace,
)
from xlora_bench.inject.state_dict import adapter_state_dict, base_state_dict, load_adapter_state_dict
from xlora_bench.inject.training_hooks import penalty, post_optimizer_step, trained_biases

__all__ = [
    "DEFAULT",
    "adapted_layers",
    "adapted_pairs",
    "adapter_names",
    "adapter_parameters",
    "adapter_state_dict",
    "add_adapter",
    "base_state_dict",
    "deltas",
    "disable",
    "disabled",
    "enable",
    "heads",
    "inject",
    "load_adapter",
    "load_adapter_state_dict",
    "merge",
    "new_head",
    "parameter_count",
    "penalty",
    "post_optimizer_step",
    "remove",
    "remove_adapter",
    "rename_adapter",
    "replace",
    "requires_grad_",
    "route",
    "save_adapter",
    "trained_biases",
    "unmerge",
    "use_adapters",
]
