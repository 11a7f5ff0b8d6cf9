"""Linear layers whose frozen weight is kept in 8 or 4 bits and dequantised in each forward, on any device."""

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from xlora_bench.nn.layers.base import adapts
from xlora_bench.nn.layers.linear import AdaptedLinear

Quantization = Literal["int8", "int4"]
GROUP = 64
"""Entries of a row that share a scale in int4, as in QLoRA; in int8 the whole row shares one."""


class QuantizedLinear(nn.Module):
    """`y = x W^T + b` with `W = scale * codes`, rounded to nearest from a frozen `linear` layer.

    int8: `codes (out, in)` in -127..127, one `scale = max |w| / 127` per row. int4: integers in -7..7, two per byte in
    `codes (out, groups, 32)`, one `scale = max |w| / 7` per group of 64 entries of a row; the last group is filled up
    with zeros. So `|W - w| <= scale / 2`. `weight` has the dtype of `scale`, to which a cast of the model applies.
    """

    def __init__(self, linear: nn.Linear, quantization: Quantization) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.quantization, self.bias = quantization, linear.bias
        codes, scale = quantized(linear.weight.detach(), quantization)
        self.codes = nn.Parameter(codes, requires_grad=False)
        self.scale = nn.Parameter(scale, requires_grad=False)
        self.train(linear.training)

    @property
    def weight(self) -> Tensor:
        """The dequantised weight `(out, in)`, a new tensor in each call: writing to it changes nothing."""
        return unpacked(self.codes, self.scale, self.in_features)

    def forward(self, x: Tensor) -> Tensor:
        """Return `x W^T + b`, `(..., in) -> (..., out)`. Until the backward, only the codes are kept in memory."""
        output: Tensor = DequantizedLinear.apply(x, self.bias, self.codes, self.scale)
        return output

    def extra_repr(self) -> str:
        """Return the sizes for the printed model."""
        return f"in_features={self.in_features}, out_features={self.out_features}, quantization={self.quantization}"


class DequantizedLinear(torch.autograd.Function):
    """`Y = X W^T + b` for frozen codes of W; `dX = G W`, `db = sum G`. Both passes dequantise W."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor | None, codes: Tensor, scale: Tensor) -> Tensor:
        """Return Y `(..., out)` for `x (..., in)`."""
        ctx.save_for_backward(codes, scale)
        ctx.in_features = x.shape[-1]
        return F.linear(x, unpacked(codes, scale, x.shape[-1]), bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of X and b that are needed, in the dtype of Y's."""
        codes, scale = ctx.saved_tensors
        weight = unpacked(codes, scale, ctx.in_features).to(gradient.dtype) if ctx.needs_input_grad[0] else None
        d_x = None if weight is None else gradient @ weight
        d_bias = gradient.flatten(0, -2).sum(0) if ctx.needs_input_grad[1] else None
        return d_x, d_bias, None, None


@adapts(QuantizedLinear)
class AdaptedQuantizedLinear(AdaptedLinear):
    """An `AdaptedLinear` on a `QuantizedLinear`; its merged weight is a plain one."""

    @property
    def is_quantized(self) -> bool:
        """True: merging needs `dequantize=True`."""
        return True

    def merged_output(self, x: Tensor, weight: Tensor) -> Tensor:
        """Return `x W^T + b` with the merged `weight`."""
        return F.linear(x, weight, self.bias)

    def with_weight(self, weight: Tensor) -> nn.Module:
        """Return an `nn.Linear` with `weight` and the bias of the base layer."""
        linear = nn.Linear(self.in_features, self.out_features, bias=False, device="meta")
        linear.weight = nn.Parameter(weight, requires_grad=False)
        linear.register_parameter("bias", self.base_layer.bias)
        return linear.train(self.training)


def quantized(weight: Tensor, quantization: Quantization) -> tuple[Tensor, Tensor]:
    """Return the codes and scales of `weight (out, in)` in the shapes that `QuantizedLinear` explains."""
    if quantization == "int8":
        return rounded(weight, 127)
    groups = F.pad(weight, (0, -weight.shape[1] % GROUP)).unflatten(1, (-1, GROUP))
    integers, scale = rounded(groups, 7)
    nibbles = (integers + 8).to(torch.uint8)
    return nibbles[..., ::2] | nibbles[..., 1::2] << 4, scale


def rounded(weight: Tensor, largest: int) -> tuple[Tensor, Tensor]:
    """Return integers in `-largest..largest` and `scale (..., 1)` with `weight = scale * integers`, but for rounding.

    Each scale is for one row of the last dimension; that of a row of zeros is 1.
    """
    scale = weight.abs().amax(dim=-1, keepdim=True) / largest
    scale = scale.masked_fill(scale == 0, 1.0)
    return (weight / scale).round().clamp(-largest, largest).to(torch.int8), scale


def unpacked(codes: Tensor, scale: Tensor, in_features: int) -> Tensor:
    """Return the weight `(out, in)`, in the dtype of `scale`."""
    if codes.dtype == torch.int8:
        return codes.to(scale.dtype) * scale
    integers = torch.stack((codes & 15, codes >> 4), dim=-1).flatten(-2).to(scale.dtype) - 8
    return (integers * scale).flatten(1)[:, :in_features]


def entries(model: nn.Module) -> int:
    """Return the number of entries of all parameters; those of a quantised weight count as in a plain one."""
    layers = [module for module in model.modules() if isinstance(module, QuantizedLinear)]
    own = sum(layer.codes.numel() + layer.scale.numel() for layer in layers)
    plain = sum(layer.in_features * layer.out_features for layer in layers)
    return sum(parameter.numel() for parameter in model.parameters()) - own + plain
