"""Names of the task head of a model: everything outside its pretrained base."""

from torch import nn


def head_module_names(model: nn.Module) -> list[str]:
    """Return the names of all top-level children except the base model; none without `base_model_prefix`."""
    prefix = getattr(model, "base_model_prefix", "")
    if not prefix or not hasattr(model, prefix):
        return []
    return [name for name, _ in model.named_children() if name != prefix]


def head_parameter_names(model: nn.Module) -> set[str]:
    """Return the names of the head's parameters."""
    heads = tuple(f"{name}." for name in head_module_names(model))
    return {name for name, _ in model.named_parameters() if heads and name.startswith(heads)}
