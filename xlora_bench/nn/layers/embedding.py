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
    """`y = W[id] + sum_i s_i B_i A_i[:, id]` for a table `W (V, d)`; the matrix view is its transpose `(d, V)`.

    `B (d, r)`, `A (r, V)`. Columns of A are gathered; neither a one-hot vector nor the table's update is formed.

    * `padding_idx`: the update of that row is zero and has no gradient, merged or not.
    * `max_norm`: the base rows are renormalised out of place, to the same values as in `nn.Embedding`, which would
      write them to the frozen table. The update is added afterwards and is not renormalised. The matrix view is the
      renormalised table, so merging gives the same output.
    * `scale_grad_by_freq`: the gradient of a column of A is divided by the count of its id in the batch.
    * `dropout` drops the update of whole tokens, which is dropout on the one-hot input.
    * `sparse` is refused. Autograd has sparse gradients only for whole rows of a leaf, but A is stored `(r, V)` like
      every other factor and may be computed (triangles, anchors, diagonals). The frozen table needs no gradient, and
      the dense gradient of A is d / r times smaller than the table's.
    """

    base_layer: nn.Embedding

    @classmethod
    def incompatibility(cls, base_layer: nn.Module) -> str | None:
        """Return why a table with `sparse=True` cannot be adapted, or None."""
        if not base_layer.sparse:
            return None
        return (
            "its `sparse` (=True) asks for sparse gradients, which the (r, V) factor cannot have; set `.sparse = "
            "False` on it (the table itself is frozen and needs none) and train with any optimizer"
        )

    def weight_matrix(self) -> Tensor:
        """Return the table's transpose `(d, V)`, renormalised if the layer has `max_norm`."""
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
        scales = limit / (norms.double() + 1e-7)  # as in nn.Embedding
        return torch.where(norms > limit, rows * scales.to(rows.dtype), rows)

    def base_output(self, x: Tensor) -> Tensor:
        """Return the frozen table's rows `(..., d)` for ids `x (...)`, without writing to the table."""
        if self.base_layer.max_norm is None:
            return self.base_layer(x)
        return self.renormalised(F.embedding(x, self.weight))

    def merged_output(self, x: Tensor, weight: Tensor) -> Tensor:
        """Return rows of the merged table `weight (V, d)`: renormalised rows plus their updates."""
        return F.embedding(x, weight)

    def apply_delta(self, delta: "Delta", x: Tensor) -> Tensor:
        """Return `s B A[:, x]`, `(..., d)`, for ids `x (...)`."""
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
        """Return the base table with `weight`, without `max_norm`: the rows are already renormalised."""
        self.base_layer.max_norm = None
        return super().with_weight(weight)
