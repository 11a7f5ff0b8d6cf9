"""Export an adapter as a plain peft LoRA adapter."""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from xlora_bench.adapters.dora import MagnitudeDelta
from xlora_bench.adapters.lora import contiguous_copy
from xlora_bench.inject.heads import own_heads
from xlora_bench.inject.peft_io.factor_layouts import MAGNITUDE, to_peft
from xlora_bench.inject.peft_io.module_names import PREFIX, pattern_key, plain_names, target_modules
from xlora_bench.inject.query import DEFAULT, adapted_layers, check_known, heads
from xlora_bench.nn.layers import AdaptedLayer

if TYPE_CHECKING:
    from peft import LoraConfig


def export_peft(model: nn.Module, folder: Path | str, name: str = DEFAULT) -> None:
    """Write the adapter called `name` and its head to `folder` as a peft LoRA adapter for the unmodified base.

    `s B A` becomes `lora_B = B (out, k)`, `lora_A = A (k, in)` and `lora_alpha = s k`, so that peft's `lora_alpha / r`
    is s. An update `s (B A - B0 A0)` with both factors anchored is written exactly, with `k = 2r`. The head goes to
    `modules_to_save`: the adapter's own, or else the model's.

    Raises:
        ValueError: if there is no such adapter, it has no LoRA form, or it trained biases of the base.
    """
    check_known(model, name)
    layers = {path: layer for path, layer in adapted_layers(model) if name in layer.deltas}
    check_lora_form(layers, name)
    check_names(model, layers)
    tensors: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    for module_name, layer in layers.items():
        with torch.no_grad():
            B, A = layer.deltas[name].factors()
        ranks[module_name] = len(A)
        parts = to_peft(layer, B, A, module_name=module_name)
        if isinstance(layer.deltas[name], MagnitudeDelta):
            parts[MAGNITUDE] = layer.deltas[name].magnitude
        for key, tensor in parts.items():
            tensors[f"{PREFIX}{module_name}.{key}"] = contiguous_copy(tensor)
    head = heads(model, name) or own_heads(model)
    for module_name, module in head.items():
        tensors |= {
            f"{PREFIX}{module_name}.{key}": contiguous_copy(tensor) for key, tensor in module.state_dict().items()
        }
    alphas = {module_name: layer.deltas[name].scaling * ranks[module_name] for module_name, layer in layers.items()}
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config_of(model, name, ranks=ranks, alphas=alphas, head=list(head)).save_pretrained(str(folder))
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def check_names(model: nn.Module, layers: Iterable[str]) -> None:
    """Raise a ValueError if one of `layers` is no module of the base, but part of what replaced one."""
    if inner := sorted(set(layers) - set(plain_names(model))):
        raise ValueError(
            f"`{inner[0]}` is part of a module that was replaced as a whole, which peft cannot name; merge the adapter "
            "(`remove(model, merged=True)`) and save the whole model"
        )


def check_lora_form(layers: Mapping[str, AdaptedLayer], name: str) -> None:
    """Raise a ValueError if peft cannot represent the adapter as LoRA or DoRA."""
    layer = next(iter(layers.values()))
    adapter = layer.adapter_configs[name].adapter
    if "" in layers:
        raise ValueError("the model is itself the adapted layer, which peft cannot name; put it in a module")
    if not layer.deltas[name].additive and not isinstance(layer.deltas[name], MagnitudeDelta):
        raise ValueError(
            f"`adapter` (={adapter.name}) has no LoRA form: it is not `W + s B A`; merge it "
            "(`remove(model, merged=True)`) and save the whole model"
        )
    if adapter.bias != "none":
        raise ValueError(
            f"`adapter.bias` (={adapter.bias!r}) trained biases of the base, which a LoRA file has no place for; "
            "merge it (`remove(model, merged=True)`) and save the whole model"
        )


def config_of(
    model: nn.Module, name: str, *, ranks: Mapping[str, int], alphas: Mapping[str, float], head: list[str]
) -> "LoraConfig":
    """Return peft's config: the most common rank and alpha, and patterns for modules with other values."""
    from peft import LoraConfig  # noqa: PLC0415 - slow to import

    rank, alpha = (Counter(values.values()).most_common(1)[0][0] for values in (ranks, alphas))
    layers = [layer for _, layer in adapted_layers(model) if name in layer.deltas]
    return LoraConfig(
        r=int(rank),
        lora_alpha=number(alpha),  # type: ignore[arg-type]
        target_modules=target_modules(list(ranks), plain_names(model)),
        rank_pattern={pattern_key(module_name): value for module_name, value in ranks.items() if value != rank},
        alpha_pattern={
            pattern_key(module_name): number(value) for module_name, value in alphas.items() if value != alpha
        },
        lora_dropout=layers[0].deltas[name].dropout,
        use_dora=isinstance(layers[0].deltas[name], MagnitudeDelta),
        fan_in_fan_out=any(type(layer.base_layer).__name__ == "Conv1D" for layer in layers),
        modules_to_save=head or None,
        task_type="SEQ_CLS" if type(model).__name__.endswith("ForSequenceClassification") else None,
        base_model_name_or_path=getattr(model, "name_or_path", None) or None,
        inference_mode=True,
    )


def number(value: float) -> float:
    """Return a whole number as int, as in peft's own files."""
    return int(value) if float(value).is_integer() else value
