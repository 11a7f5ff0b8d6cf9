"""The rules of `grid:`, which make a sweep something else than a Cartesian product."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

ABSENT = object()
"""The value of a key that a run's config does not have."""

PARTS = ("when", "set", "each", "exclude")


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One rule: what it is for (`when`), and what becomes of such a run (`set`, `each` or `exclude`).

    `when` maps a group or a dotted key to the values that match; all keys must match, an empty `when` matches every
    run. `set` adds overrides, `each` multiplies the run by lists of values, `exclude` leaves it out and says why.

    Raises:
        ValueError: if the rule does nothing, or excludes and does something else.
    """

    number: int
    when: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    set: Mapping[str, Any] = field(default_factory=dict)
    each: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    exclude: str | None = None

    def __post_init__(self) -> None:
        if not (self.set or self.each or self.exclude):
            raise ValueError(f"{self.name} does nothing: give it `set`, `each` or `exclude`")
        if self.exclude and (self.set or self.each):
            raise ValueError(f"{self.name} excludes and sets: make two rules of it")
        if both := sorted(set(self.set) & set(self.each)):
            raise ValueError(f"{self.name} has `{both[0]}` in `set` and in `each`: keep one")

    @property
    def name(self) -> str:
        """The rule's place in messages."""
        return f"rule {self.number} of `grid`"

    @classmethod
    def parse(cls, node: Any, *, number: int) -> "Rule":
        """Return rule `number` (from 1) of the `grid` node of a config.

        Raises:
            ValueError: if it is not a mapping of `when`, `set`, `each`, `exclude`.
        """
        where = f"rule {number} of `grid`"
        if not isinstance(node, Mapping) or not set(node) <= set(PARTS):
            wrong = sorted(set(node) - set(PARTS)) if isinstance(node, Mapping) else node
            raise ValueError(f"{where} has {wrong}: a rule is a mapping of {', '.join(PARTS)}")
        for part in ("when", "set", "each"):
            if not isinstance(node.get(part, {}), Mapping):
                raise ValueError(f"`{part}` (={node[part]}) of {where} must map keys to values")
        each = dict(node.get("each", {}))
        for key, values in each.items():
            if not isinstance(values, list) or not values:
                raise ValueError(f"`each.{key}` (={values}) of {where} must be a list of values")
        reason = node.get("exclude")
        if "exclude" in node and not (isinstance(reason, str) and reason.strip()):
            raise ValueError(f"`exclude` (={reason}) of {where} must say why")
        when = {key: value if isinstance(value, list) else [value] for key, value in node.get("when", {}).items()}
        return cls(number=number, when=when, set=dict(node.get("set", {})), each=each, exclude=reason)

    def matches(self, value: Callable[[str], Any]) -> bool:
        """Whether a run, given by the values of its keys, is one that this rule is for."""
        return matches(self.when, value)


def matches(when: Mapping[str, Sequence[Any]], value: Callable[[str], Any]) -> bool:
    """Whether every key of `when` has one of its values."""
    return all(any(same(value(key), wanted) for wanted in values) for key, values in when.items())


def parse_rules(node: Any) -> list[Rule]:
    """Return the rules of the `grid` node of a config, in order."""
    if not isinstance(node or [], list):
        raise ValueError(f"`grid` (={node}) must be a list of rules, each with {', '.join(PARTS)}")
    return [Rule.parse(item, number=number) for number, item in enumerate(node or [], start=1)]


def same(result: Any, wanted: Any) -> bool:
    """Whether two values are one: `2e-5` is `0.00002`, as text and as a number; null is only null."""
    if result is ABSENT or (result is None) != (wanted is None):
        return False
    if result == wanted:
        return isinstance(result, bool) == isinstance(wanted, bool)
    try:
        return float(result) == float(wanted)
    except (TypeError, ValueError):
        return str(result) == str(wanted)
