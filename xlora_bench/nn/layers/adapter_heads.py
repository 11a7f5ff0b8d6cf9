"""Task heads per adapter: each adapter may own a copy of the model's head."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from xlora_bench.nn.layers.adapter_dict import AdapterDict, Route
from xlora_bench.nn.layers.base import accept_plain_keys


class AdapterHeads(nn.Module):
    """A frozen head `base_layer` and a copy of it per adapter; `serving` is the name of the one in use.

    With a `route`, each row of the batch goes to the head of its own adapter. Outputs with fewer classes are padded
    with the logit `-inf`.
    """

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.heads = AdapterDict()
        self.serving: str | None = None
        self.route: Route | None = None
        self.register_load_state_dict_pre_hook(accept_plain_keys)

    def of(self, name: str | None) -> nn.Module:
        """Return the head of the adapter called `name`, or the base's if it has none."""
        return self.base_layer if name is None or name not in self.heads else self.heads[name]

    def forward(self, x: Tensor) -> Tensor:
        """Return the output of the serving head for `x`; with a `route`, of each row's own head."""
        if self.route is None:
            return self.of(self.serving)(x)
        rows = self.route.rows(x)
        outputs = [self.of(name)(x[own]) for name, own in rows.items()]
        width = max(output.shape[-1] for output in outputs)
        filled = [F.pad(output, (0, width - output.shape[-1]), value=float("-inf")) for output in outputs]
        return torch.cat(filled)[torch.cat(list(rows.values())).argsort()]
