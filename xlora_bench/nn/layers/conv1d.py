"""Adapted `Conv1D` of transformers (GPT-2): a linear layer whose weight is stored `(in, out)`."""

from collections.abc import Callable

from torch import Tensor

from xlora_bench.nn.layers.base import adapts
from xlora_bench.nn.layers.linear import AdaptedLinear


@adapts("transformers.pytorch_utils.Conv1D")
class AdaptedConv1D(AdaptedLinear):
    """`y = x W + b + sum_i s_i (dropout(x) A_i^T) B_i^T` with `W (in, out)`; the matrix view is its transpose."""

    def weight_matrix(self) -> Tensor:
        """Return the weight's transpose `(out, in)`."""
        return self.dense_weight().T

    def as_weight(self, matrix: Tensor) -> Tensor:
        """Return the transpose `(in, out)` of `matrix`."""
        return matrix.T.contiguous()

    def plain_forwards(self) -> tuple[Callable[..., Tensor], ...]:
        """Return the forward of `Conv1D`."""
        from transformers.pytorch_utils import Conv1D  # noqa: PLC0415 - slow to import

        return (Conv1D.forward,)
