"""LoRA with a chosen init for each factor; each factor is trained or frozen."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Generator, Tensor

from xlora_bench.adapters.base import Adapter
from xlora_bench.adapters.decompositions.factorizations import Part, svd
from xlora_bench.adapters.delta import Delta
from xlora_bench.adapters.init_schemes import BuiltinInit, InitialFactors, InitScheme, KaimingInit
from xlora_bench.adapters.init_schemes.orthonormal import orthonormal_rows
from xlora_bench.adapters.lora import LowRankDelta

TOKEN = re.compile(r"(h?)([ABE])_(V_last|U_last|V|U|rand|he|zero|I)")
INITS = {
    "A": ("V", "V_last", "rand", "he", "zero"),
    "B": ("U", "U_last", "rand", "he", "zero"),
    "E": ("I", "rand", "zero"),
}
E_STD = 1e-5


class Factor(NamedTuple):
    """Init of one factor, and whether the factor trains."""

    init: str
    train: bool


@dataclass(frozen=True, kw_only=True)
class Asymmetric(Adapter):
    """`W' = W + s (B [E] A - B0 [E0] A0)`; each factor has its own init and is trained or frozen.

    `spec` joins one token each for `A (r, in)`, `B (out, r)` and optionally `E (r, r)` by `_`, in any order. `h`
    ("hat") marks a trained factor, as in `A_rand_hB_zero`. Inits of A: V or V_last (leading or last right singular
    vectors of W), `rand` (orthonormal rows), `he` (Kaiming uniform), `zero`. Inits of B: U, U_last, `rand` (orthonormal
    columns), `he`, `zero`. Inits of E: `I`, `rand` (N(0, 1e-10), as in LoRA-XS), `zero`. The options A, B, E
    (`{init: ..., train: ...}`) have the same content and take precedence. Parameters: `r in` for a trained A, `r out`
    for B, `r^2` for E. Source: arXiv 2402.16842 (asymmetry); the middle factor: arXiv 2405.17604 (LoRA-XS).

    Raises:
        ValueError: if the spec does not parse, an init does not fit its factor, or no factor could ever learn.
    """

    spec: str | None = "A_rand_hB_zero"
    A: Mapping[str, str | bool] | None = None
    B: Mapping[str, str | bool] | None = None
    E: Mapping[str, str | bool] | None = None

    supported_inits: ClassVar[tuple[str, ...] | None] = ("builtin",)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_learns(self.plan, self.written)

    @property
    def written(self) -> str:
        """The options `spec`, A, B and E as given, for messages."""
        return f"`adapter.spec` (={self.spec!r}, A={self.A}, B={self.B}, E={self.E})"

    @property
    def plan(self) -> dict[str, Factor]:
        """The factors by name: A, B and optionally E."""
        factors = parse_spec(self.spec) if self.spec else {}
        for name, given in (("A", self.A), ("B", self.B), ("E", self.E)):
            if given is not None:
                factors[name] = structured(name, given)
        if missing := [name for name in "AB" if name not in factors]:
            raise ValueError(
                f"{self.written} says nothing about {' and '.join(missing)}; write for instance A_rand_hB_zero"
            )
        return factors

    def default_init(self) -> InitScheme:
        """Return the builtin init: `spec` decides."""
        return BuiltinInit()

    def init_factors(
        self, weight: Tensor, rank: int, *, scaling: float, init_scheme: InitScheme, generator: Generator
    ) -> InitialFactors:
        """Return the initial factors A and B of `plan`."""
        out_features, in_features = weight.shape
        A = init_factor(
            self.plan["A"].init, rank, in_features, lambda part: svd(weight, rank=rank, part=part).Vh, generator
        )
        B = init_factor(
            self.plan["B"].init, rank, out_features, lambda part: svd(weight, rank=rank, part=part).U.T, generator
        )
        if self.plan["B"].init == "he":  # fan-in of B (out, r) is r, not out
            B = KaimingInit().draw(out_features, rank, generator).T
        return InitialFactors(B.T, A)

    def delta(self, weight: Tensor, initial: InitialFactors, *, scaling: float, generator: Generator) -> Delta:
        """Return the delta that trains the factors marked as trained."""
        rank = initial.A.shape[0]
        E = init_middle(self.plan["E"].init, rank, generator).to(weight.device) if "E" in self.plan else None
        trained = [name for name, factor in self.plan.items() if factor.train]
        return LowRankDelta(initial, scaling=scaling, trained=trained, E=E)

    def parameter_count(self, out_features: int, in_features: int, rank: int) -> int:
        """Sum of `r in` if A trains, `r out` if B trains, `r^2` if E trains."""
        sizes = {"A": rank * in_features, "B": rank * out_features, "E": rank * rank}
        return sum(sizes[name] for name, factor in self.plan.items() if factor.train)


def parse_spec(spec: str) -> dict[str, Factor]:
    """Parse `[h]A_<init>_[h]B_<init>[_[h]E_<init>]`, in any order.

    Raises:
        ValueError: if a part does not parse or a factor is named twice.
    """
    factors: dict[str, Factor] = {}
    position = 0
    while position < len(spec):
        token = TOKEN.match(spec, position)
        if token is None or token[2] in factors or not re.match(r"_|$", spec[token.end() :]):
            raise ValueError(
                f"`adapter.spec` (={spec!r}) does not parse at {spec[position:]!r}: join one token for each of A, B "
                f"and optionally E by `_`, each `[h]<factor>_<init>` (h: trained), as in A_rand_hB_zero; inits: {INITS}"
            )
        factors[token[2]] = checked(token[2], Factor(token[3], bool(token[1])))
        position = token.end() + 1
    return factors


def structured(name: str, given: Mapping[str, str | bool]) -> Factor:
    """Return the factor of the structured form `{init: ..., train: ...}`."""
    if set(given) != {"init", "train"} or not isinstance(given["train"], bool):
        raise ValueError(f"`adapter.{name}` (={dict(given)}) must have the keys init and train (true or false)")
    return checked(name, Factor(str(given["init"]), given["train"]))


def checked(name: str, factor: Factor) -> Factor:
    """Return `factor`; raise a ValueError if its init does not fit the factor called `name`."""
    if factor.init not in INITS[name]:
        raise ValueError(f"init {factor.init!r} does not fit factor {name} of `adapter.spec`: use one of {INITS[name]}")
    return factor


def check_learns(plan: Mapping[str, Factor], written: str) -> None:
    """Raise a ValueError if no factor trains, a frozen factor is zero, or two factors are zero (no gradients)."""
    zero = [name for name, factor in plan.items() if factor.init == "zero"]
    if not any(factor.train for factor in plan.values()):
        raise ValueError(f"{written} trains nothing: mark at least one factor with h, as in A_rand_hB_zero")
    if frozen := [name for name in zero if not plan[name].train]:
        raise ValueError(
            f"{written} freezes {frozen[0]} at zero, so the update stays zero: train it (h{frozen[0]}_zero)"
        )
    if len(zero) > 1:
        raise ValueError(
            f"{written} starts {' and '.join(zero)} at zero, so none gets a gradient: choose another init for one"
        )


def init_factor(init: str, rank: int, columns: int, singular: Callable[[Part], Tensor], generator: Generator) -> Tensor:
    """Return a factor `(rank, columns)`; `singular(part)` returns singular vectors as rows."""
    if init == "zero":
        return torch.zeros(rank, columns)
    if init == "rand":
        return orthonormal_rows(rank, columns, generator)
    if init == "he":
        return KaimingInit().draw(rank, columns, generator)
    return singular("minor" if init.endswith("_last") else "principal")


def init_middle(init: str, rank: int, generator: Generator) -> Tensor:
    """Return the initial middle factor `E0 (r, r)`."""
    if init == "I":
        return torch.eye(rank)
    return torch.zeros(rank, rank) if init == "zero" else E_STD * torch.randn(rank, rank, generator=generator)
