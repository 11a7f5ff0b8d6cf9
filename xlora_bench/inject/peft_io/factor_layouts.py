"""peft's tensor names and shapes of the two factors, by layer type."""

import torch
from torch import Tensor, nn

from xlora_bench.adapters.init_schemes import InitialFactors
from xlora_bench.nn.layers import AdaptedLayer

EMBEDDING = ("lora_embedding_A", "lora_embedding_B")
OTHER = ("lora_A.weight", "lora_B.weight")
MAGNITUDE = "lora_magnitude_vector"
SUFFIXES = (*EMBEDDING, *OTHER, MAGNITUDE)
PLAIN = {"groups": (1,), "dilation": ((1,), (1, 1), (1, 1, 1)), "padding_mode": ("zeros",)}
"""Options of convolutions with which peft computes `W + s B A`."""


def to_peft(layer: AdaptedLayer, B: Tensor, A: Tensor, *, module_name: str) -> dict[str, Tensor]:
    """Return `B (out, r)` and `A (r, in)` with peft's names and shapes for this layer.

    Linear and `Conv1D`: unchanged. Embedding: A `(r, V)` with the column of `padding_idx` set to zero, B `(d, r)`.
    Convolutions: A `(r, in, k...)`, B `(out, r, 1...)`.
    """
    base = layer.base_layer
    check_supported(base, module_name)
    if isinstance(base, nn.Embedding):
        if base.padding_idx is not None:
            A = A.clone()
            A[:, base.padding_idx] = 0.0
        return dict(zip(EMBEDDING, (A, B), strict=True))
    if isinstance(base, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        ones = [1] * len(base.kernel_size)
        A, B = A.reshape(len(A), *layer.weight.shape[1:]), B.reshape(*B.shape, *ones)
    return dict(zip(OTHER, (A, B), strict=True))


def from_peft(layer: AdaptedLayer, tensors: dict[str, Tensor], *, module_name: str) -> InitialFactors:
    """Return peft's factors of this layer as `B (out, r)` and `A (r, in)`, fp32.

    Raises:
        ValueError: if a factor is missing, there are other tensors, or the shapes do not fit the layer's weight.
    """
    check_supported(layer.base_layer, module_name)
    names = EMBEDDING if isinstance(layer.base_layer, nn.Embedding) else OTHER
    if set(tensors) != set(names):
        raise ValueError(f"`{module_name}` has the tensors {sorted(tensors)} in the file, it needs {sorted(names)}")
    A, B = (tensors[name].to(torch.float32) for name in names)
    out_features, in_features = layer.weight_matrix().shape
    flat = (A.flatten(1), B.flatten(1)) if min(A.ndim, B.ndim) > 1 and len(A) else None
    if flat is None or flat[1].shape != (out_features, len(A)) or flat[0].shape[1] != in_features:
        raise ValueError(
            f"the file has factors {tuple(B.shape)} and {tuple(A.shape)} for `{module_name}`, whose weight is "
            f"({out_features}, {in_features}) as a matrix: it is of another model"
        )
    A, B = flat
    return InitialFactors(B, A)


def check_supported(base: nn.Module, module_name: str) -> None:
    """Raise a ValueError if peft would compute another update for this layer."""
    for option, plain in PLAIN.items():
        value = getattr(base, option, None)
        if value is not None and value not in plain:
            raise ValueError(
                f"`{module_name}` is a convolution with {option}={value!r}, which peft's update of it ignores; "
                "merge the adapter (`remove(model, merged=True)`) and save the whole model"
            )
    if getattr(base, "max_norm", None) is not None:
        raise ValueError(f"`{module_name}` is an embedding with max_norm, which peft applies to the update too")
