"""Import a peft LoRA adapter, also PiSSA and OLoRA, whose init rewrites the base weight in peft."""

import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from xlora_bench.adapters.delta import Delta
from xlora_bench.adapters.dora import DoRA, MagnitudeDelta
from xlora_bench.adapters.init_schemes import InitScheme, KaimingInit, QRInit, SVDInit
from xlora_bench.adapters.lora import LoRA, LowRankDelta
from xlora_bench.inject.adapter_config import AdapterConfig
from xlora_bench.inject.adding import NewDeltas, check_new, install, install_head, layer_at
from xlora_bench.inject.heads import copy_of, resize
from xlora_bench.inject.peft_io.factor_layouts import MAGNITUDE, SUFFIXES, from_peft
from xlora_bench.inject.peft_io.module_names import PREFIX, plain_names
from xlora_bench.inject.state_dict import check_state, copy_state
from xlora_bench.inject.targets import Targets
from xlora_bench.nn.layers import AdaptedLayer
from xlora_bench.system.options import Count, Fraction, OptionsError, option_faults

if TYPE_CHECKING:
    from peft import LoraConfig

REWRITING: dict[str, InitScheme] = {"pissa": SVDInit(sigma="both"), "olora": QRInit()}
"""Init schemes for which peft subtracts `s B0 A0` from the base. The base alone determines `B0 A0`."""
PLAIN = (True, False, None, "gaussian", "orthogonal", "eva", "mica")
"""Values of `init_lora_weights` that do not change the base."""


@dataclass(kw_only=True)
class PeftOptions:
    """The options of peft's `LoraConfig` that an import reads."""

    r: Count
    lora_alpha: float
    lora_dropout: Fraction
    use_rslora: bool
    use_dora: bool
    lora_bias: bool
    bias: str
    alpha_pattern: Mapping[str, float] | None
    init_lora_weights: bool | str | None
    modules_to_save: Sequence[str] | None


def import_peft(model: nn.Module, folder: Path | str, name: str | None = None) -> nn.Module:
    """Add the peft adapter in `folder`, with its head, under `name` (by default the folder's name).

    LoRA, rsLoRA and DoRA are imported unchanged. A PiSSA or OLoRA adapter belongs to the base minus `s B0 A0`, which
    peft computes again at each load. Here `B0 A0` is computed from the unmodified base and subtracted from the update.
    An adapter saved with `path_initial_model_for_weight_conversion` is already plain LoRA. `use_adapters` activates
    the adapter. Returns the model, or a new root module if the root itself is adapted.

    Raises:
        ValueError: if the folder has no peft LoRA adapter or one of an unsupported kind, or a tensor is missing,
            unexpected, not finite or of another shape or kind. The model is then unchanged.
    """
    folder = Path(folder)
    config, tensors = read(folder)
    name = folder.resolve().name if name is None else name
    check_new(model, name)
    check_kind(config)
    factors, rest = split(tensors)
    copies = head_copies(model, config, rest)
    new_deltas = [at(model, module_name, module_tensors, config) for module_name, module_tensors in factors.items()]
    adapter_config = AdapterConfig(
        adapter=adapter_of(config, new_deltas),
        init_scheme=init_scheme_of(config),
        targets=Targets(modules=list(factors)),
    )
    return install_head(install(model, name, new_deltas, adapter_config), name, copies)


def read(folder: Path) -> tuple["LoraConfig", dict[str, Tensor]]:
    """Return peft's config and tensors in `folder`."""
    from peft import PeftConfig  # noqa: PLC0415 - slow to import

    for file in ("adapter_config.json", "adapter_model.safetensors"):
        if not (folder / file).is_file():
            raise ValueError(f"`{folder}` holds no {file}: give the folder that peft's save_pretrained wrote")
    try:
        config = PeftConfig.from_pretrained(str(folder))
        return config, load_file(folder / "adapter_model.safetensors")
    except (OSError, SafetensorError, TypeError, KeyError, ValueError, RecursionError) as error:
        raise ValueError(f"`{folder}` cannot be read as a peft adapter: {error}") from error


def check_kind(config: "LoraConfig") -> None:
    """Raise a ValueError if an adapter of this kind cannot be imported."""
    kind = str(getattr(config.peft_type, "value", config.peft_type))
    if kind != "LORA":
        raise ValueError(f"the adapter's peft_type is {kind}: only LORA adapters can be imported")
    read = {name: getattr(config, name, None) for name in PeftOptions.__annotations__}
    if faults := option_faults(PeftOptions, read, group="adapter_config.json"):
        raise OptionsError(faults)
    for pattern in config.alpha_pattern or {}:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"`alpha_pattern` key {pattern!r} is no regular expression: {error}") from None
    if config.bias != "none" or config.lora_bias:
        raise ValueError(
            "the adapter trained biases (bias, lora_bias), which belong to the base shared by all adapters"
        )
    if config.init_lora_weights not in (*PLAIN, *REWRITING):
        raise ValueError(
            f"the adapter has init_lora_weights={config.init_lora_weights!r}, which changed the base in a way "
            "that its file does not contain; save it with path_initial_model_for_weight_conversion as plain LoRA"
        )


def split(tensors: Mapping[str, Tensor]) -> tuple[dict[str, dict[str, Tensor]], dict[str, Tensor]]:
    """Return the factors by module name, and the other tensors, without peft's prefix."""
    factors: dict[str, dict[str, Tensor]] = defaultdict(dict)
    rest = {}
    for key, tensor in tensors.items():
        plain = key.removeprefix(PREFIX)
        if not tensor.is_floating_point() or not tensor.float().isfinite().all():
            raise ValueError(f"`{plain}` must hold finite floating-point numbers, it has dtype {tensor.dtype}")
        suffix = next((suffix for suffix in SUFFIXES if plain.endswith(f".{suffix}")), None)
        if suffix is None:
            rest[plain] = tensor
        else:
            factors[plain.removesuffix(f".{suffix}")][suffix] = tensor
    if not factors:
        raise ValueError("the file holds no LoRA factors (lora_A, lora_B)")
    return dict(factors), rest


def at(
    model: nn.Module, module_name: str, tensors: dict[str, Tensor], config: "LoraConfig"
) -> tuple[str, AdaptedLayer, Delta]:
    """Return the name, the adapted layer and the delta of one module. Does not change the model."""
    if module_name not in plain_names(model):
        raise ValueError(f"the file adapts `{module_name}`, which this {type(model).__name__} does not have")
    layer = layer_at(model, module_name)
    magnitude = tensors.pop(MAGNITUDE, None)
    if (magnitude is None) == config.use_dora:
        without = "without" if magnitude is None else "with"
        raise ValueError(f"the file says use_dora={config.use_dora}, and has `{module_name}` {without} {MAGNITUDE}")
    initial = from_peft(layer, tensors, module_name=module_name)
    weight = layer.weight_matrix()
    scaling = scaling_of(config, module_name, rank=len(initial.A))
    if magnitude is None:
        delta = LowRankDelta(initial, scaling=scaling).match(weight)
    else:
        delta = MagnitudeDelta(weight, initial, scaling=scaling).match(weight)
        if magnitude.numel() != delta.magnitude.numel():
            raise ValueError(f"`{module_name}.{MAGNITUDE}` has shape {tuple(magnitude.shape)} in the file")
        delta.magnitude.data.copy_(magnitude.flatten())
    delta.dropout = config.lora_dropout
    if isinstance(config.init_lora_weights, str) and config.init_lora_weights in REWRITING:
        subtracted = init_scheme_of(config).init_factors(
            weight, len(initial.A), scaling=scaling, generator=torch.Generator()
        )
        delta.B0, delta.A0 = (factor.contiguous() for factor in subtracted)
    return module_name, layer, delta.match(weight)


def scaling_of(config: "LoraConfig", module_name: str, *, rank: int) -> float:
    """Return peft's scaling at `module_name`: `alpha / r`, or `alpha / sqrt(r)` for rsLoRA."""
    from peft.utils.other import get_pattern_key  # noqa: PLC0415 - slow to import

    pattern = config.alpha_pattern or {}
    alpha = pattern.get(get_pattern_key(list(pattern), module_name), config.lora_alpha)
    return alpha / math.sqrt(rank) if config.use_rslora else alpha / rank


def init_scheme_of(config: "LoraConfig") -> InitScheme:
    """Return the init scheme that changed the base in peft, or LoRA's default."""
    return REWRITING.get(str(config.init_lora_weights), KaimingInit())


def adapter_of(config: "LoraConfig", new_deltas: NewDeltas) -> LoRA:
    """Return the options of the imported adapter, with patterns for modules with other ranks or alphas."""
    ranks = {module_name: delta.rank for module_name, _, delta in new_deltas}
    alphas = {
        module_name: delta.scaling * (math.sqrt(delta.rank) if config.use_rslora else delta.rank)
        for module_name, _, delta in new_deltas
    }
    kind = DoRA if config.use_dora else LoRA
    return kind(
        rank=config.r,
        alpha=config.lora_alpha,
        use_rslora=config.use_rslora,
        dropout=config.lora_dropout,
        rank_pattern={module_name: rank for module_name, rank in ranks.items() if rank != config.r},
        alpha_pattern={
            module_name: alpha for module_name, alpha in alphas.items() if not math.isclose(alpha, config.lora_alpha)
        },
    )


def head_copies(model: nn.Module, config: "LoraConfig", tensors: Mapping[str, Tensor]) -> dict[str, nn.Module]:
    """Return copies of the modules in `modules_to_save` with the tensors and output sizes of the file."""
    saved = tuple(config.modules_to_save or ())
    owners: dict[str, str] = {}
    for key in tensors:
        fitting = [name for name in plain_names(model) if name.endswith(saved) and saved and key.startswith(f"{name}.")]
        if not fitting:
            raise ValueError(f"the file has `{key}`, which belongs to no module of this {type(model).__name__}'s head")
        owners[key] = min(fitting, key=len)
    copies = {module_name: copy_of(model, module_name) for module_name in dict.fromkeys(owners.values())}
    for module_name, module in copies.items():
        state = {
            key.removeprefix(f"{module_name}."): tensors[key] for key, owner in owners.items() if owner == module_name
        }
        fill(module, state, module_name)
    return copies


def fill(module: nn.Module, state: Mapping[str, Tensor], module_name: str) -> None:
    """Load `state` into the head `module`; resize its last linear layer to the outputs in `state` first."""
    layers = [(name, layer) for name, layer in module.named_modules() if isinstance(layer, nn.Linear)]
    if layers:
        name, last = layers[-1]
        weight = state.get(f"{name}.weight" if name else "weight")
        if weight is not None and len(weight) != last.out_features:
            resize(last, len(weight))
    own = module.state_dict(keep_vars=True)
    check_state(own, state, f"the head `{module_name}`")
    copy_state(own, state)
