"""`start_from`: a run that starts from the trained adapter of a parent run, such as `[task=mnli]`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from xlora_bench import inject
from xlora_bench.inject.state_dict import check_state, copy_state
from xlora_bench.runs.overrides import START_FROM
from xlora_bench.training.loop.trained_state import trained_names

SAME = ("model", "adapter", "init_scheme", "targets")
"""Groups that must be equal in a run and its parent, so that the parent's tensors fit."""
MAY_DIFFER = ("dropout", "gradient_checkpointing", "attention")
"""Options of those groups that may differ: they change the training, not the meaning of the tensors."""


def check_parent(child: Mapping[str, Any], parent: Mapping[str, Any]) -> None:
    """Raise a ValueError if the adapter trained by config `parent` does not fit the model of config `child`."""
    if str(child["adapter"].get("_target_", "")).endswith(".Peft"):
        raise ValueError(f"`{START_FROM}` needs one of our own variants: what peft freezes by chance is not recorded")
    for part in SAME:
        for key in sorted({*child[part], *parent[part]} - set(MAY_DIFFER)):
            ours, theirs = child[part].get(key), parent[part].get(key)
            if ours != theirs:
                raise ValueError(
                    f"`{START_FROM}`: `{part}.{key}` is {ours!r} here and {theirs!r} in the parent, whose adapter then "
                    f"does not fit; take `{part}` out of the list, or set it to the same in both"
                )


def load_parent_adapter(model: nn.Module, path: Path, *, head: set[str]) -> None:
    """Load the parent's trained tensors from `path`, except those of the head, which `head` names.

    Raises:
        ValueError: if the tensors are not those of this model.
    """
    tensors = model.state_dict()
    own = {name: tensors[name] for name in trained_names(model) - head}
    state = {name: tensor for name, tensor in load_file(path).items() if name not in head}
    check_state(own, state, f"the model that is to start from {path}")
    with torch.no_grad():
        copy_state(own, state)
    for layer, delta in inject.adapted_pairs(model):
        delta.rebuild_buffers(layer.weight_matrix())
