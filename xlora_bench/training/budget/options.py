"""Options of the config node `budget`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self

from annotated_types import MinLen

from xlora_bench.system.options import CheckedOptions, Count, Fraction, OptionsError, option_faults

UNITS = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}


@dataclass(frozen=True, kw_only=True)
class Budget(CheckedOptions):
    """Target cost of one run: `trainable_params` (entries) or `flops_per_step`, as a number or as `300k`, `1.5T`.

    `count_head` says whether `trainable_params` includes the task head, which always trains. A step is forward and
    backward of `task.batch_size` examples of `length` tokens (None: `task.max_length`), 2 FLOPs per multiply-add.
    `tolerance` is relative. `targets` lists target groups; the first one that meets the budget is used.

    Raises:
        ValueError: if an option is outside its range, or two budgets are given at once.
    """

    config_group: ClassVar[str] = "budget"

    trainable_params: float | str | None = None
    flops_per_step: float | str | None = None
    count_head: bool = False
    tolerance: Fraction = 0.01
    length: Count | None = None
    targets: Annotated[Sequence[str], MinLen(1)] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.trainable_params is not None and self.flops_per_step is not None:
            raise ValueError(
                f"`budget` has trainable_params (={self.trainable_params}) and flops_per_step "
                f"(={self.flops_per_step}); the rank can meet only one of them: drop the other"
            )
        if self.key is not None and not 0 < self.wanted < float("inf"):
            raise ValueError(f"`budget.{self.key}` (={self.wanted:g}) must be positive")

    @classmethod
    def parse(cls, node: Mapping[str, Any] | None) -> Self | None:
        """Return the budget of the config's node `budget`, or None if it sets none."""
        if faults := option_faults(cls, node or {}, group=cls.config_group):
            raise OptionsError(faults)
        budget = cls(**node) if node else cls()
        return None if budget.key is None else budget

    @property
    def key(self) -> str | None:
        """The budgeted quantity: `trainable_params`, `flops_per_step`, or None if neither is set."""
        return next((key for key in ("trainable_params", "flops_per_step") if getattr(self, key) is not None), None)

    @property
    def wanted(self) -> float:
        """The budget as a number."""
        return number(getattr(self, str(self.key)), str(self.key))

    def within(self, value: float) -> bool:
        """Whether `|value - wanted| <= tolerance * wanted`."""
        return abs(value - self.wanted) <= self.tolerance * self.wanted


def number(value: float | str, key: str) -> float:
    """Parse a number that may end in k, M, G or T: `300k` is 300,000."""
    text = str(value).strip()
    try:
        return float(text[:-1]) * UNITS[text[-1]] if text[-1:] in UNITS else float(text)
    except ValueError:
        raise ValueError(f"`budget.{key}` (={value!r}) must be a number, or one with k, M, G or T") from None


def with_budget(node: Mapping[str, Any] | None, *, choices: Mapping[str, str | None]) -> dict[str, str | None]:
    """Return the group choices that label a job: add the budget, drop `targets` if the budget chooses them."""
    node = node or {}
    key = next((key for key in ("trainable_params", "flops_per_step") if node.get(key) is not None), None)
    if key is None:
        return dict(choices)
    kept = {name: choice for name, choice in choices.items() if name != "targets" or not node.get("targets")}
    return {**kept, "budget": f"{key}={node[key]}"}
