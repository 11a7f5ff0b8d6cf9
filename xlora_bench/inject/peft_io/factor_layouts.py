"""How peft lays out the two factors of each type of layer."""

import torch
from torch import Tensor, nn

from xlora_bench.adapters.init_schemes import Start
from xlora_bench.nn.layers import AdaptedLayer

EMBEDDING = ("lora_embedding_A", "lora_embedding_B")
OTHER = ("lora_A.weight", "lora_B.weight")
MAGNITUDE = "lora_magnitude_vector"
SUFFIXES = (*EMBEDDING, *OTHER, MAGNITUDE)
PLAIN = {"groups": (1,), "dilation": ((1,), (1, 1), (1, 1, 1)), "padding_mode": ("zeros",)}
"""Options of convolutions for which peft computes `W + s B A`."""


def to_peft(layer: AdaptedLayer, up: Tensor, down: Tensor, *, place: str) -> dict[str, Tensor]:
    """Return `up (out, r)` and `down (r, in)` under peft's names and in its shapes for this layer.

    Linear and `Conv1D`: as they are. Embedding: `(r, V)` without the column of `padding_idx`, and `(d, r)`.
    Convolutions: `(r, in, k...)` and `(out, r, 1...)`.
    """
    base = layer.base_layer
    check_supported(base, place)
    if isinstance(base, nn.Embedding):
        if base.padding_idx is not None:
            down = down.clone()
            down[:, base.padding_idx] = 0.0
        return dict(zip(EMBEDDING, (down, up), strict=True))
    if isinstance(base, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        ones = [1] * len(base.kernel_size)
        down, up = down.reshape(len(down), *layer.weight.shape[1:]), up.reshape(*up.shape, *ones)
    return dict(zip(OTHER, (down, up), strict=True))


def from_peft(layer: AdaptedLayer, tensors: dict[str, Tensor], *, place: str) -> Start:
    """Return peft's factors of this layer as `B (out, r)` and `A (r, in)`, fp32.

    Raises:
        ValueError: if one is missing, there are others, or they do not fit the layer's weight.
    """
    check_supported(layer.base_layer, place)
    names = EMBEDDING if isinstance(layer.base_layer, nn.Embedding) else OTHER
    if set(tensors) != set(names):
        raise ValueError(f"`{place}` has the tensors {sorted(tensors)} in the file, it needs {sorted(names)}")
    down, up = (tensors[name].flatten(1).to(torch.float32) for name in names)
    out_features, in_features = layer.weight_matrix().shape
    if up.shape != (out_features, len(down)) or down.shape[1] != in_features:
        raise ValueError(
            f"the file has factors {tuple(up.shape)} and {tuple(down.shape)} for `{place}`, whose weight is "
            f"({out_features}, {in_features}) as a matrix: it is of another model"
        )
    return Start(up, down)


def check_supported(base: nn.Module, place: str) -> None:
    """Raise a ValueError where peft computes something else on a layer."""
    for option, plain in PLAIN.items():
        value = getattr(base, option, None)
        if value is not None and value not in plain:
            raise ValueError(
                f"`{place}` is a convolution with {option}={value!r}, which peft's update of it leaves out of account; "
                "merge the adapter (`remove(model, merged=True)`) and save the whole model"
            )
    if getattr(base, "max_norm", None) is not None:
        raise ValueError(f"`{place}` is an embedding with max_norm, which peft applies to the update too")
