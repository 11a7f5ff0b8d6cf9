"""One case of the conformance suite: a variant with an init scheme on one layer type, in one dtype."""

import copy
from functools import cache
from typing import Any, Self

import torch

from xlora_bench import inject
from xlora_bench.adapters import Adapter, Delta
from xlora_bench.adapters.init_schemes import InitScheme
from xlora_bench.inject.methods import as_method
from xlora_bench.nn.layers import AdaptedLayer
from xlora_bench.training.conformance.broken_promise import require
from xlora_bench.training.conformance.layer_kinds import KINDS, Kind
from xlora_bench.training.conformance.nets import TARGETS, KindNet, inputs

RANK, ALPHA = 4, 12.0  # alpha != rank, so a forgotten scaling shows
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
TOLERANCES = {
    "fp32": {"rtol": 1e-4, "atol": 1e-5},
    "bf16": {"rtol": 2e-2, "atol": 2e-2},
    "fp16": {"rtol": 4e-3, "atol": 4e-3},
}


class Case:
    """A base model, the same model adapted, and a batch."""

    def __init__(
        self, adapter: Adapter, init_scheme: InitScheme, kind: str = "linear", dtype: str = "fp32", *, seed: int = 5
    ) -> None:
        self.about = (adapter, init_scheme, kind, dtype)
        self.kind, self.dtype, self.tolerance = KINDS[kind], DTYPES[dtype], TOLERANCES[dtype]
        self.adapter, self.x = adapter, inputs(dtype=self.dtype)
        self.base = base_net(self.kind, self.dtype)
        self.net: Any = as_method(adapter).apply(
            copy.deepcopy(self.base), targets=TARGETS, init_scheme=init_scheme, seed=seed, total_steps=10
        )
        self.layer: AdaptedLayer = dict(inject.adapted_layers(self.net))["body.target"]
        self.delta: Delta = self.layer.deltas[inject.DEFAULT]

    def with_seed(self, seed: int) -> "Case":
        """Return the same case with other random draws."""
        return Case(*self.about, seed=seed)

    def perturbed(self) -> Self:
        """Move every trained entry away from its start."""
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for parameter in self.delta.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        return self


@cache
def base_net(kind: Kind, dtype: torch.dtype) -> KindNet:
    """Return the frozen model around a layer of type `kind`; it is shared, so copy it before it is adapted."""
    return KindNet(kind, dtype=dtype).requires_grad_(False).eval()


def rejection(adapter: Adapter, init_scheme: InitScheme, kind: str, dtype: str = "fp32") -> str | None:
    """Return why the variant refuses the case, or None.

    Raises:
        BrokenPromiseError: if the refusal left the model changed.
    """
    net = copy.deepcopy(base_net(KINDS[kind], DTYPES[dtype])).requires_grad_(True)
    try:
        as_method(adapter).apply(net, targets=TARGETS, init_scheme=init_scheme, seed=0, total_steps=1)
    except ValueError as error:
        require(not any(True for _ in inject.adapted_layers(net)), f"adapted, although it was refused: {error}")
        require(all(p.requires_grad for p in net.parameters()), f"parameters were frozen before the refusal: {error}")
        return str(error)
    return None
