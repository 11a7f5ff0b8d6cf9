"""Adapted `nn.Embedding`."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from xlora_bench.nn.layers.base import AdaptedLayer, adapts

if TYPE_CHECKING:
    from xlora_bench.adapters.delta import Delta


@adapts(nn.Embedding)
class AdaptedEmbedding(AdaptedLayer):
    """`y = W[id] + sum_i s_i up_i down_i[:, id]` for a table `W (V, d)`; the matrix view is its transpose `(d, V)`.

    The columns of `A (r, V)` are gathered; neither a one-hot vector nor the table's update is formed.

    * `padding_idx`: the update of that row is zero and has no gradient, merged or not.
    * `max_norm`: the looked-up base rows are renormalised out of place, to the numbers `nn.Embedding` gives; it would
      write them into the frozen table. The update is added to the renormalised row and is not renormalised itself, and
      the matrix view is that of the renormalised table, so that merging computes the same.
    * `scale_grad_by_freq`: the gradient of an indexed column is divided by how often its id is in the batch.
    * `dropout` drops whole tokens of the update: the same as dropout on the one-hot input.
    * `sparse` is refused: `A` is stored `(r, V)` like every other factor, and autograd has sparse gradients for
      whole rows of a leaf only, not for columns or for factors that are computed (triangles, anchored starts,
      diagonals). The frozen table needs none, and the dense gradient of `A` is d / r times smaller than the table's.
    """

    base_layer: nn.Embedding

    @classmethod
    def incompatibility(cls, base_layer: nn.Module) -> str | None:
        """Return why a table with sparse gradients cannot be adapted."""
        if not base_layer.sparse:
            return None
        return (
            "its `sparse` (=True) asks for sparse gradients, which the (r, V) factor cannot have; set `.sparse = "
            "False` on it (the table itself is frozen and needs none) and train with any optimizer"
        )

    def weight_matrix(self) -> Tensor:
        """Return the table's transpose `(d, V)`, renormalised where the layer has `max_norm`."""
        return self.renormalised(self.dense_weight()).T

    def as_weight(self, matrix: Tensor) -> Tensor:
        """Return the transpose `(V, d)` of `matrix`."""
        return matrix.T.contiguous()

    def renormalised(self, rows: Tensor) -> Tensor:
        """Return `rows (..., d)`, each scaled down to a norm of at most `max_norm`."""
        limit = self.base_layer.max_norm
        if limit is None:
            return rows
        norms = rows.norm(p=self.base_layer.norm_type, dim=-1, keepdim=True)
        scales = limit / (norms.double() + 1e-7)  # as nn.Embedding has it
        return torch.where(norms > limit, rows * scales.to(rows.dtype), rows)

    def base_output(self, x: Tensor) -> Tensor:
        """Return the frozen table's rows `(..., d)` for ids `x (...)`; the table is only read."""
        if self.base_layer.max_norm is None:
            return self.base_layer(x)
        return self.renormalised(F.embedding(x, self.weight))

    def merged_output(self, x: Tensor, weight: Tensor) -> Tensor:
        """Return the rows of the merged table `weight`, which holds renormalised rows plus their updates."""
        return F.embedding(x, weight)

    def apply_delta(self, delta: "Delta", x: Tensor) -> Tensor:
        """Return `s B A[:, x]`, `(...) -> (..., d)`."""
        B, A = delta.factors()
        pad, by_frequency = self.base_layer.padding_idx, self.base_layer.scale_grad_by_freq
        columns = F.embedding(x, A.T, padding_idx=pad, scale_grad_by_freq=by_frequency)
        kept = F.dropout(columns.new_ones(x.shape), delta.dropout, training=self.training)
        return F.linear(columns * (kept * delta.scaling).unsqueeze(-1), B)

    def output_update(self, delta: "Delta", x: Tensor, output: Tensor) -> Tensor:
        """Return the update of the rows `output (..., d)` of ids `x (...)`, zero at `padding_idx`."""
        update, pad = super().output_update(delta, x, output), self.base_layer.padding_idx
        return update if pad is None else update.masked_fill((x == pad).unsqueeze(-1), 0.0)

    def update(self, delta: "Delta") -> Tensor:
        """Return the dense update `(d, V)`, zero at `padding_idx`."""
        matrix, pad = super().update(delta), self.base_layer.padding_idx
        if pad is not None:
            matrix[:, pad] = 0.0
        return matrix

    def with_weight(self, weight: Tensor) -> nn.Module:
        """Return a plain table with `weight`, without `max_norm`: the rows are final as they are."""
        self.base_layer.max_norm = None
        return super().with_weight(weight)
