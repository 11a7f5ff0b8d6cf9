"""Target modules: the modules of a model to adapt."""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from annotated_types import MinLen
from torch import nn

from xlora_bench.inject.head_names import head_module_names
from xlora_bench.nn.layers import AdaptedLayer, AdaptedLinear, adapted_type, base_of, incompatibility
from xlora_bench.nn.layers.adapter_heads import AdapterHeads
from xlora_bench.system.options import CheckedOptions

ALL_LINEAR = "all-linear"
Names = Annotated[Sequence[str], MinLen(1)]


@dataclass(frozen=True, kw_only=True)
class Targets(CheckedOptions):
    """Target modules by name.

    `modules` has one of three forms. A list of names: each matches modules with that name or that dotted ending
    (`query` matches `encoder.layer.0.attention.self.query`; the empty name is the model itself). One regular
    expression, which must match whole names. `all-linear`: `nn.Linear` and transformers' `Conv1D`. Without `modules`,
    `architectures` gives such a value per `model.config.model_type`. Task heads are never adapted.

    Raises:
        ValueError: if a text is no regular expression; from `names`, if an entry matches nothing or a matched module
            cannot be adapted.
    """

    config_group: ClassVar[str] = "targets"

    modules: Names | str | None = None
    architectures: Mapping[str, Names | str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        for pattern in (self.modules, *self.architectures.values()):
            try:
                re.compile(pattern if isinstance(pattern, str) else "")
            except re.error as error:
                raise ValueError(f"`targets.modules` (={pattern!r}) is no regular expression: {error}") from None

    def names(self, model: nn.Module) -> list[str]:
        """Return the names of the modules to adapt, in the model's order."""
        names = self.matching(model)
        for name in names:
            if (reason := incompatibility(model, name)) is not None:
                raise ValueError(f"`{name}` cannot be adapted since {reason}")
        return names

    def matching(self, model: nn.Module) -> list[str]:
        """Return the names of the adaptable modules that the entries match."""
        candidates = adaptable_names(model)
        wanted = self.wanted(model)
        if wanted == ALL_LINEAR:
            names = [name for name in candidates if is_linear(model.get_submodule(name))]
            return names or _nothing(wanted, candidates)
        if isinstance(wanted, str):
            return [name for name in candidates if re.fullmatch(wanted, name)] or _nothing(wanted, candidates)
        for entry in wanted:
            if not any(matches(entry, name) for name in candidates):
                refuse(entry, model, candidates)
        return [name for name in candidates if any(matches(entry, name) for entry in wanted)]

    def wanted(self, model: nn.Module) -> Sequence[str] | str:
        """Return the entries for this model: `modules`, or those of its architecture."""
        if self.modules is not None:
            return self.modules
        model_type = getattr(getattr(model, "config", None), "model_type", type(model).__name__)
        if model_type in self.architectures:
            return self.architectures[model_type]
        known = ", ".join(self.architectures) or "none"
        raise ValueError(
            f"`targets` has no names for architecture {model_type!r} (known: {known}); give targets.modules=[...]"
        )


def is_linear(module: nn.Module) -> bool:
    """Whether `module` is a linear layer, adapted or not."""
    kind = adapted_type(base_of(module))
    return isinstance(kind, type) and issubclass(kind, AdaptedLinear)


def adaptable_names(model: nn.Module) -> list[str]:
    """Return the names of all adaptable modules, without heads and without parts of adapted or adaptable layers."""
    heads = head_module_names(model)
    fitting = [name for name, module in model.named_modules() if adapted_type(base_of(module)) is not None]
    adapted = [name for name, module in model.named_modules() if isinstance(module, (AdaptedLayer, AdapterHeads))]
    return [
        name
        for name in fitting
        if not any(name != outer and name.startswith(f"{outer}." if outer else "") for outer in {*fitting, *adapted})
        and not any(name == head or name.startswith(f"{head}.") for head in heads)
    ]


def matches(entry: str, name: str) -> bool:
    """Whether `name` is `entry` or ends with `.entry`."""
    return name == entry or name.endswith(f".{entry}")


def refuse(entry: str, model: nn.Module, candidates: Sequence[str]) -> None:
    """Raise the error for an entry of `targets.modules` that matches no adaptable module."""
    other = [(name, module) for name, module in model.named_modules() if name and matches(entry, name)]
    if other:
        name, module = other[0]
        if any(name == head or name.startswith(f"{head}.") for head in head_module_names(model)):
            reason = "it is part of the head, which trains as a whole"
        else:
            reason = incompatibility(model, name) or "it is inside an adapted layer"
        raise ValueError(
            f"`targets.modules` entry {entry!r} matches `{name}`, a {type(module).__name__} that cannot be adapted "
            f"since {reason}; adaptable here: {_shown(candidates)}"
        )
    _nothing(entry, candidates)


def _nothing(entry: Sequence[str] | str, candidates: Sequence[str]) -> list[str]:
    endings = sorted({name.rsplit(".", 1)[-1] for name in candidates})
    near = difflib.get_close_matches(str(entry).rsplit(".", 1)[-1], endings, n=3)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    raise ValueError(f"`targets.modules` entry {entry!r} matches no module; {hint}adaptable here: {_shown(candidates)}")


def _shown(candidates: Sequence[str]) -> str:
    endings = sorted({name.rsplit(".", 1)[-1] for name in candidates})
    return ", ".join(endings) or "nothing"
