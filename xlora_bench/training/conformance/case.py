"""One case of the conformance suite: a variant with an init scheme on one layer type, in one precision."""

import copy
from dataclasses import dataclass
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
from xlora_bench.training.conformance.nets import TARGETS, KindNet, autocast, inputs

RANK, ALPHA = 4, 12.0  # alpha != rank, so a forgotten scaling shows


@dataclass(frozen=True)
class Precision:
    """The dtype of the weights, that of autocast (None: without), and the tolerance of a comparison."""

    dtype: torch.dtype
    autocast: torch.dtype | None
    rtol: float
    atol: float

    @property
    def tolerance(self) -> dict[str, float]:
        """The options of `torch.testing.assert_close`."""
        return {"rtol": self.rtol, "atol": self.atol}


PRECISIONS = {
    "fp32": Precision(torch.float32, None, 1e-4, 1e-5),
    "bf16": Precision(torch.bfloat16, None, 2e-2, 2e-2),
    "fp16": Precision(torch.float16, None, 4e-3, 4e-3),
    "fp64": Precision(torch.float64, None, 1e-6, 1e-7),
    "bf16-mixed": Precision(torch.float32, torch.bfloat16, 2e-2, 5e-2),
    "fp16-mixed": Precision(torch.float32, torch.float16, 4e-3, 4e-3),
}
"""Precisions by name. The factors are fp32 in all but fp64."""


class Case:
    """A base model, the same model adapted, and a batch."""

    def __init__(
        self,
        adapter: Adapter,
        init_scheme: InitScheme,
        kind: str = "linear",
        precision: str = "fp32",
        *,
        seed: int = 5,
        device: str = "cpu",
    ) -> None:
        self.about = (adapter, init_scheme, kind, precision)
        self.device = device
        self.kind, self.precision = KINDS[kind], PRECISIONS[precision]
        self.dtype, self.tolerance = self.precision.dtype, self.precision.tolerance
        self.adapter, self.x = adapter, inputs(dtype=self.dtype).to(device)
        self.base = base_net(self.kind, self.precision, device)
        self.net: Any = as_method(adapter).apply(
            copy.deepcopy(self.base), targets=TARGETS, init_scheme=init_scheme, seed=seed, total_steps=10
        )
        self.layer: AdaptedLayer = dict(inject.adapted_layers(self.net))["body.target"]
        self.delta: Delta = self.layer.deltas[inject.DEFAULT]

    def with_seed(self, seed: int) -> "Case":
        """Return the same case with other random draws."""
        return Case(*self.about, seed=seed, device=self.device)

    def perturbed(self) -> Self:
        """Move every trained entry away from its start."""
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for parameter in self.delta.parameters():
                parameter.add_((0.1 * torch.randn(parameter.shape, generator=generator)).to(parameter.device))
        return self

    def autocast(self) -> torch.autocast:
        """Return the context in which the model computes."""
        return autocast(self.device, self.precision.autocast)


@cache
def base_net(kind: Kind, precision: Precision, device: str = "cpu") -> KindNet:
    """Return the frozen model around a layer of type `kind`; it is shared, so copy it before it is adapted."""
    net = KindNet(kind, dtype=precision.dtype, autocast_dtype=precision.autocast)
    return net.requires_grad_(False).eval().to(device)


def rejection(
    adapter: Adapter, init_scheme: InitScheme, kind: str, precision: str = "fp32", *, device: str = "cpu"
) -> str | None:
    """Return why the variant refuses the case, or None.

    Raises:
        BrokenPromiseError: if the refusal left the model changed.
    """
    net = copy.deepcopy(base_net(KINDS[kind], PRECISIONS[precision], device)).requires_grad_(True)
    try:
        as_method(adapter).apply(net, targets=TARGETS, init_scheme=init_scheme, seed=0, total_steps=1)
    except ValueError as error:
        require(not any(True for _ in inject.adapted_layers(net)), f"adapted, although it was refused: {error}")
        require(all(p.requires_grad for p in net.parameters()), f"parameters were frozen before the refusal: {error}")
        return str(error)
    return None
