"""The processes that train one run on several devices, and what they compute together."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, distributed

Row = TypeVar("Row")


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """This process is number `rank` of the `world` processes of a run; by default it is the only one.

    With a larger `world`, torch's default process group must be there, and every rank must call each method that takes
    a tensor, in the same order.
    """

    rank: int = 0
    world: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the rank that writes files."""
        return self.rank == 0

    def share(self, rows: Sequence[Row]) -> Sequence[Row]:
        """Return the rows of this rank: each row belongs to one rank."""
        return rows[self.rank :: self.world]

    def total(self, tensor: Tensor) -> Tensor:
        """Return the sum of `tensor` over the ranks, the same bits on each of them; `tensor` may be changed."""
        if self.world > 1:
            distributed.all_reduce(tensor)
        return tensor

    def gathered(self, rows: Tensor) -> Tensor:
        """Return the `rows` (n, ...) of all ranks in the order of the ranks; n may differ."""
        if self.world == 1:
            return rows
        counts = torch.zeros(self.world, dtype=torch.int64, device=rows.device)
        counts[self.rank] = len(rows)
        longest = int(self.total(counts).max())
        padded = rows.new_zeros(longest, *rows.shape[1:])
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in range(self.world)]
        distributed.all_gather(parts, padded)
        return torch.cat([part[:count] for part, count in zip(parts, counts.tolist(), strict=True)])

    def equal(self, tensors: Sequence[Tensor]) -> bool:
        """Return whether every rank has the bits of the first one in `tensors`."""
        if self.world == 1 or not tensors:
            return True
        own = torch.cat([tensor.detach().contiguous().reshape(-1).view(torch.uint8) for tensor in tensors])
        first = own.clone()
        distributed.broadcast(first, src=0)
        return int(self.total((own != first).any().long())) == 0


ALONE = Ranks()
"""The rank of a run on one device."""
