"""Adapter files: one safetensors file with the tensors, head and options of an adapter and a hash of its base."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from xlora_bench.adapters.base import Adapter
from xlora_bench.adapters.delta import Delta
from xlora_bench.adapters.init_schemes import InitialFactors, InitScheme
from xlora_bench.adapters.lora import contiguous_copy
from xlora_bench.inject.adapter_config import AdapterConfig
from xlora_bench.inject.adapter_options import described, made
from xlora_bench.inject.adding import NewDeltas, blocks_at, check_head, check_new, install, install_head, layer_at
from xlora_bench.inject.heads import copy_of, linears_of, resize
from xlora_bench.inject.query import adapted_layers, check_known, deltas, heads
from xlora_bench.inject.state_dict import check_state, copy_state, tensors_of
from xlora_bench.inject.targets import Targets
from xlora_bench.nn.layers import AdaptedLayer
from xlora_bench.nn.layers.compatibility import is_block
from xlora_bench.system.io import write_atomically
from xlora_bench.system.options import Count, OptionsError, option_faults
from xlora_bench.system.tensor_hash import content_hash

FORMAT = 1
KEY = "xlora_bench"
"""Key of the safetensors metadata under which everything but the tensors is stored as JSON."""
OLD_BUFFERS = {"up0": "B0", "down0": "A0"}


@dataclass(kw_only=True)
class Metadata:
    """The metadata of an adapter file, for `option_faults`."""

    version: int
    name: str
    adapter: Mapping[str, Any]
    init_scheme: Mapping[str, Any]
    targets: Mapping[str, Any]
    modules: Mapping[str, Any]
    heads: Mapping[str, Count | None]


@dataclass(kw_only=True)
class ModuleEntry:
    """The metadata of one adapted weight: shape as a matrix, rank, scaling, and hash of the frozen weight."""

    shape: tuple[Count, Count]
    rank: Count
    scaling: float
    weight: str


def save_adapter(model: nn.Module, name: str, path: Path | str) -> None:
    """Write the adapter called `name` and its head to one safetensors file.

    Keys are `deltas/<module>/<tensor>` and `head/<module>/<tensor>`. The metadata contains class and options and, per
    module, the rank, the scaling and a hash of the frozen weight.

    Raises:
        ValueError: if there is no such adapter.
    """
    check_known(model, name)
    tensors = prefixed("deltas", deltas(model, name)) | prefixed("head", heads(model, name))
    path = Path(path)
    metadata = {"format": "pt", KEY: json.dumps(metadata_of(model, name))}
    write_atomically(path, save({key: contiguous_copy(tensor) for key, tensor in tensors.items()}, metadata=metadata))


def prefixed(kind: str, modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """Return the tensors of `modules` by key `<kind>/<module>/<tensor>`."""
    return {
        f"{kind}/{path}/{key}": tensor
        for path, module in modules.items()
        for key, tensor in tensors_of({"": module}).items()
    }


def metadata_of(model: nn.Module, name: str) -> dict[str, Any]:
    """Return the metadata of an adapter file."""
    layers = {path: layer for path, layer in adapted_layers(model) if name in layer.deltas}
    adapter_config = next(iter(layers.values())).adapter_configs[name]
    return {
        "version": FORMAT,
        "name": name,
        "adapter": described(adapter_config.adapter),
        "init_scheme": described(adapter_config.init_scheme),
        "targets": described(adapter_config.targets),
        "modules": {path: module_entry(layer, layer.deltas[name]) for path, layer in layers.items()},
        "heads": {path: width(head) for path, head in heads(model, name).items()},
    }


def module_entry(layer: AdaptedLayer, delta: Delta) -> dict[str, Any]:
    """Return the metadata of one adapted weight."""
    matrix = layer.weight_matrix()
    return {"shape": list(matrix.shape), "rank": delta.rank, "scaling": delta.scaling, "weight": content_hash(matrix)}


def width(head: nn.Module) -> int | None:
    """Return the number of outputs of a head's last linear layer."""
    return next((layer.out_features for layer in reversed(list(linears_of(head)))), None)


def load_adapter(model: nn.Module, path: Path | str, *, name: str | None = None, other_base: bool = False) -> nn.Module:
    """Add the adapter in the file `path` under its own name or `name`; `use_adapters` activates it.

    Tensors that a file leaves out (LoLDU's triangular factors) are computed from the frozen weight along the stored
    row permutation, so another device or BLAS gives the same adapter. Returns the model, or a new root module if the
    root itself is adapted.

    Raises:
        ValueError: if the file is damaged or no adapter file; a tensor is missing, unexpected, not finite or of
            another shape or kind; a module does not exist; or a frozen weight differs from the one trained on (unless
            `other_base`). The model is then unchanged.
    """
    metadata, tensors = read(Path(path))
    name = name or str(metadata["name"])
    check_new(model, name)
    adapter_config = adapter_config_of(metadata)
    with blocks_at(model, blocks_of(model, metadata["modules"])) as whole:
        new_deltas = rebuilt(whole, adapter_config.adapter, metadata["modules"], tensors, other_base=other_base)
        copies = rebuilt_heads(whole, metadata["heads"])
        own = prefixed("deltas", {path: delta for path, _, delta in new_deltas}) | prefixed("head", copies)
        check_state(own, tensors, f"`{path}`")
        copy_state(own, tensors)
        for _, layer, delta in new_deltas:
            delta.rebuild_buffers(layer.weight_matrix())
        return install_head(install(whole, name, new_deltas, adapter_config), name, copies)


def blocks_of(model: nn.Module, entries: Iterable[str]) -> list[str]:
    """Return the names of the modules that are replaced as a whole to get the layers `entries` of a file."""
    adapted = [f".{entry}" for entry in entries]
    return [
        path
        for path, module in model.named_modules()
        if is_block(module) and any(entry.startswith(f".{path}.adapted." if path else ".adapted.") for entry in adapted)
    ]


def read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the metadata and the tensors of an adapter file."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = parsed((file.metadata() or {}).get(KEY, "{}"))
            tensors = {current_key(key): file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping
    except (OSError, SafetensorError, ValueError) as error:
        raise ValueError(f"`{path}` cannot be read as an adapter file ({error}); save it again") from error
    if metadata.get("version") != FORMAT:
        raise ValueError(
            f"`{path}` is no adapter file of format {FORMAT} (it says {metadata.get('version')}); "
            "`save_adapter` writes them, peft's adapters come in through `import_peft`"
        )
    if faults := metadata_faults(metadata, tensors):
        raise OptionsError(f"`{path}`: {line}" for line in faults)
    return metadata, tensors


def parsed(text: str) -> dict[str, Any]:
    """Return the JSON object in `text`."""
    try:
        content = json.loads(text)
    except RecursionError:
        raise ValueError("its metadata is nested too deeply") from None
    if not isinstance(content, dict):
        raise ValueError(f"its metadata is a {type(content).__name__}, not a mapping")
    return content


def metadata_faults(metadata: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> list[str]:
    """Return what is wrong with the metadata of a file with these tensors; sizes are bounded by theirs."""
    if faults := option_faults(Metadata, metadata, group=""):
        return faults
    for name, entry in metadata["modules"].items():
        if not isinstance(entry, Mapping):
            faults.append(f"`modules.{name}` (={entry!r}) must be a mapping")
            continue
        faults += (wrong := option_faults(ModuleEntry, entry, group=f"modules.{name}"))
        sizes = [size for key, tensor in tensors.items() if key.startswith(f"deltas/{name}/") for size in tensor.shape]
        if not wrong and entry["rank"] > max(sizes, default=0):
            faults.append(f"`modules.{name}.rank` (={entry['rank']}) is larger than every tensor of this module")
    for name, outputs in metadata["heads"].items():
        rows = {len(tensor) for key, tensor in tensors.items() if key.startswith(f"head/{name}/") and tensor.ndim}
        if outputs is not None and outputs not in rows:
            faults.append(f"`heads.{name}` (={outputs}) is the size of no tensor of this head")
    return faults


def current_key(key: str) -> str:
    """Return the current key of a tensor. Files of version 0.1 call `B0`, `A0` up0, down0."""
    head, slash, last = key.rpartition("/")
    return f"{head}{slash}{OLD_BUFFERS.get(last, last)}"


def adapter_config_of(metadata: Mapping[str, Any]) -> AdapterConfig:
    """Return the adapter configuration in the metadata of a file."""
    return AdapterConfig(
        adapter=made(metadata["adapter"], Adapter),  # type: ignore[type-abstract]
        init_scheme=made(metadata["init_scheme"], InitScheme),  # type: ignore[type-abstract]
        targets=made(metadata["targets"], Targets),
    )


def rebuilt(
    model: nn.Module,
    adapter: Adapter,
    entries: Mapping[str, Mapping[str, Any]],
    tensors: Mapping[str, Tensor],
    *,
    other_base: bool,
) -> NewDeltas:
    """Return the adapted layers and uninitialised deltas of a file's modules. Does not change the model."""
    known = {path for path, _ in model.named_modules()}
    if missing := sorted(entries.keys() - known):
        raise ValueError(f"the file adapts `{missing[0]}`, which this {type(model).__name__} does not have")
    new_deltas: NewDeltas = []
    for module_name, entry in entries.items():
        layer = layer_at(model, module_name)
        weight = layer.weight_matrix()
        check_base(module_name, weight, entry, other_base=other_base)
        new_deltas.append((module_name, layer, empty_delta(adapter, weight, entry, f"deltas/{module_name}/", tensors)))
    return new_deltas


def check_base(module_name: str, weight: Tensor, entry: Mapping[str, Any], *, other_base: bool) -> None:
    """Raise a ValueError if `weight` differs from the one that the file was saved with."""
    if list(weight.shape) != entry["shape"]:
        raise ValueError(f"`{module_name}` has shape {tuple(weight.shape)} here, {tuple(entry['shape'])} in the file")
    if not other_base and content_hash(weight) != entry["weight"]:
        raise ValueError(
            f"the frozen weight at `{module_name}` is not the one this adapter was trained on; load the same "
            "pretrained weights in the same dtype, or pass other_base=True to use it on these"
        )


def empty_delta(
    adapter: Adapter, weight: Tensor, entry: Mapping[str, Any], prefix: str, tensors: Mapping[str, Tensor]
) -> Delta:
    """Return a delta with the rank, scaling and anchors of the file, values not yet loaded. No init is computed."""
    weight = weight.detach()
    out_features, in_features = weight.shape
    initial = InitialFactors(torch.zeros(out_features, entry["rank"]), torch.zeros(entry["rank"], in_features))
    generator = torch.Generator().manual_seed(0)
    delta = adapter.delta(weight, initial, scaling=entry["scaling"], generator=generator).match(weight)
    delta.dropout = adapter.dropout
    for anchor in ("B0", "A0"):
        if prefix + anchor in tensors:
            setattr(delta, anchor, torch.empty_like(tensors[prefix + anchor]))
    return delta.match(weight)


def rebuilt_heads(model: nn.Module, widths: Mapping[str, int | None]) -> dict[str, nn.Module]:
    """Return copies of the model's head modules, with the numbers of outputs in the file."""
    check_head(model, dict.fromkeys(widths, nn.Module()))
    available = {module_name: copy_of(model, module_name) for module_name in widths}
    for module_name, outputs in widths.items():
        layers = list(linears_of(available[module_name]))
        if layers and outputs is not None and layers[-1].out_features != outputs:
            resize(layers[-1], outputs)
    return available
