"""Check a variant: every promise with every init scheme and layer type, and what it must refuse."""

import dataclasses
import functools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from xlora_bench.adapters import Adapter
from xlora_bench.adapters.init_schemes import InitScheme
from xlora_bench.training.conformance.broken_promise import BrokenPromiseError, require
from xlora_bench.training.conformance.case import ALPHA, PRECISIONS, RANK, Case, rejection
from xlora_bench.training.conformance.layer_kinds import KINDS
from xlora_bench.training.conformance.promises import PROMISES, reloads_from_its_file

SQUARE = "needs a square weight"
REFUSED = re.compile(f"init schemes that fit: |{SQUARE}, this one is")
"""What the refusal of a case says: the init schemes that fit, or that the weight must be square."""
RANK_REFUSED = re.compile(r"`adapter.rank` \(=25\) .* min\(out, in\) \(=24\) at `body.target`")
PLAIN_OPTIONS: dict[str, Any] = {"dropout": 0.0, "bias": "none", "rank_pattern": {}, "alpha_pattern": {}}
"""Options that are not the variant's own; a case has no dropout, no trained biases and no patterns."""
OTHER_PRECISIONS = [name for name in PRECISIONS if name != "fp32"]
"""Precisions in which the linear layer is checked too."""
ALL = "all"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The outcome of one case. `broken` has the text of each promise that failed by its name, `reason` a refusal."""

    init_scheme: str
    kind: str
    precision: str = "fp32"
    reason: str | None = None
    broken: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def status(self) -> Literal["ok", "refused", "FAILED"]:
        """Whether all promises were kept, the case was refused with a reason, or a promise failed."""
        return "FAILED" if self.broken else "ok" if self.reason is None else "refused"

    def line(self) -> str:
        """Return the outcome in one line: the reason, or the first promise that failed and the names of the others."""
        why = self.reason or ""
        if self.broken:
            (name, text), *others = self.broken.items()
            also = f" (also: {', '.join(other for other, _ in others)})" if others else ""
            why = f"{name}: {text}{also}"
        return f"{self.status:8} {self.init_scheme:14} {self.kind:14} {self.precision:10} {why}".rstrip()


def comparable(adapter: Adapter, *, keep: tuple[str, ...] = ()) -> Adapter:
    """Return the variant with `RANK`, `ALPHA` and `PLAIN_OPTIONS`, but for the options in `keep`."""
    options = PLAIN_OPTIONS | {"rank": RANK, "alpha": ALPHA}
    return dataclasses.replace(adapter, **{key: value for key, value in options.items() if key not in keep})


def check_variant(
    adapter: Adapter, init_schemes: Mapping[str, InitScheme], *, default: InitScheme | None = None
) -> Iterator[Outcome]:
    """Yield the outcome of every case: the `init_schemes` by name, each with all layer types and other precisions.

    `default` is the init scheme that the variant's YAML brings; None: it is not checked. At the end come the promises
    that concern several cases, if they are broken.
    """
    general = [Outcome(init_scheme=ALL, kind=ALL, broken=failures(refuses_a_rank_above_the_full_rank, adapter))]
    if default is not None:
        broken = failures(brings_an_init_scheme_that_suits, adapter, default)
        general.append(Outcome(init_scheme=default.name, kind=ALL, broken=broken))
    for name, init_scheme in init_schemes.items():
        reasons = {}
        for kind in KINDS:
            outcome = check_case(adapter, init_scheme, kind, name=name)
            reasons[kind] = outcome.reason
            yield outcome
        for precision in OTHER_PRECISIONS:
            yield check_case(adapter, init_scheme, "linear", precision, name=name)
        broken = failures(treats_all_layer_types_alike, reasons)
        general.append(Outcome(init_scheme=name, kind=ALL, broken=broken))
    yield from (outcome for outcome in general if outcome.broken)


def check_case(
    adapter: Adapter, init_scheme: InitScheme, kind: str, precision: str = "fp32", *, name: str | None = None
) -> Outcome:
    """Return the outcome of one case; `name` is the init scheme's name in the config."""
    about: dict[str, Any] = {"init_scheme": name or init_scheme.name, "kind": kind, "precision": precision}
    reasons: list[str] = []
    broken = failures(is_built_or_refused_clearly, adapter, init_scheme, kind, precision, reasons)
    if broken or reasons:
        return Outcome(**about, broken=broken, reason=" ".join(reasons) or None)
    for promise in (*PROMISES, reloads_from_its_file):
        broken |= failures(on_a_new_case(promise), adapter, init_scheme, kind, precision)
    return Outcome(**about, broken=broken)


def on_a_new_case(promise: Callable[[Case], None]) -> Callable[..., None]:
    """Return `promise` as a function of a case's description: it changes the model, so it gets one of its own."""

    @functools.wraps(promise)
    def checked(*about: Any) -> None:
        promise(Case(*about))

    return checked


def failures(promise: Callable[..., None], *arguments: Any) -> dict[str, str]:
    """Return what a promise raises, by the promise's name; empty if it is kept.

    Any exception counts, because code of the user runs in it.
    """
    try:
        promise(*arguments)
    except BrokenPromiseError as error:
        return {promise.__name__: str(error)}
    except Exception as error:
        return {promise.__name__: f"{type(error).__name__}: {' '.join(str(error).split())}"}
    return {}


def is_built_or_refused_clearly(
    adapter: Adapter, init_scheme: InitScheme, kind: str, precision: str, reasons: list[str]
) -> None:
    """The case is built, or refused with what would suit; the reason is appended to `reasons`."""
    reason = rejection(adapter, init_scheme, kind, precision)
    if reason is not None:
        reasons.append(" ".join(reason.split()))
        require(REFUSED.search(reason) is not None, f"{reasons[0]} (refuse with `self.misfit(init_scheme, why)`)")


def treats_all_layer_types_alike(reasons: Mapping[str, str | None]) -> None:
    """An init scheme that a linear layer takes is taken by all layer types, but for weights that must be square."""
    taken = reasons["linear"] is None
    for kind, reason in reasons.items():
        alike = (reason is None) == taken or SQUARE in (reason or "")
        require(alike, f"a linear layer {'takes' if taken else 'refuses'} this start, {kind} does not")


def brings_an_init_scheme_that_suits(adapter: Adapter, default: InitScheme) -> None:
    """The init scheme that the variant's YAML brings is not refused on a linear layer."""
    reason = rejection(adapter, default, "linear")
    require(reason is None, f"the YAML brings a start that the variant refuses: {reason}")


def refuses_a_rank_above_the_full_rank(adapter: Adapter) -> None:
    """A rank of 25 is refused on a 24 x 24 layer, by name and with the limit, unless the variant takes any rank."""
    if adapter.rank_limited:
        reason = rejection(dataclasses.replace(adapter, rank=25), adapter.default_init(), "linear")
        text = f"`adapter.rank` (=25) is not refused with the limit min(out, in) (=24): {reason or 'it is taken'}"
        require(reason is not None and RANK_REFUSED.search(reason) is not None, text)
