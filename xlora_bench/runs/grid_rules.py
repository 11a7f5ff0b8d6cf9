"""Rules of `grid:`: they add, multiply or exclude runs of the Cartesian product of a sweep."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

ABSENT = object()
"""The value of a key that a run's config does not have."""

PARTS = ("when", "set", "each", "exclude")


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One rule: its condition (`when`) and its effect on a matching run (`set`, `each` or `exclude`).

    `when` maps a group or a dotted key to the values that match. All keys must match; an empty `when` matches every
    run. `set` adds overrides. `each` maps keys to lists and makes one run per combination. `exclude` drops the run;
    its text is the reason.

    Raises:
        ValueError: if the rule has no effect, has `exclude` and another one, or has a key in both `set` and `each`.
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
        """The rule as messages call it: its number in `grid`."""
        return f"rule {self.number} of `grid`"

    @classmethod
    def parse(cls, node: Any, *, number: int) -> "Rule":
        """Return rule `number` (from 1) of the `grid` node of a config.

        Raises:
            ValueError: if it is not a mapping of `when`, `set`, `each`, `exclude`, or one of them has a wrong value.
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
        """Whether the rule applies to a run; `value(key)` returns the run's value of a key."""
        return matches(self.when, value)


def matches(when: Mapping[str, Sequence[Any]], value: Callable[[str], Any]) -> bool:
    """Whether, for every key of `when`, the run's value is one of those listed."""
    return all(any(same(value(key), wanted) for wanted in values) for key, values in when.items())


def parse_rules(node: Any) -> list[Rule]:
    """Return the rules of the `grid` node of a config, in order; an item may be a list of rules."""
    if not isinstance(node or [], list):
        raise ValueError(f"`grid` (={node}) must be a list of rules, each with {', '.join(PARTS)}")
    items = [rule for item in node or [] for rule in (item if isinstance(item, list) else [item])]
    return [Rule.parse(item, number=number) for number, item in enumerate(items, start=1)]


def same(actual: Any, wanted: Any) -> bool:
    """Whether two values are equal, compared as numbers or as text: `2e-5` equals `0.00002`. Null equals only null."""
    if actual is ABSENT or (actual is None) != (wanted is None):
        return False
    if actual == wanted:
        return isinstance(actual, bool) == isinstance(wanted, bool)
    try:
        return float(actual) == float(wanted)
    except (TypeError, ValueError):
        return str(actual) == str(wanted)
