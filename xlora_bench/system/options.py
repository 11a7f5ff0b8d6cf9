"""Options of a class: the annotations of its fields are their types and ranges, checked strictly.

`Annotated[float, Gt(0)]` is a positive number. No text serves for a number, no number for true or false, and no
infinity for a number.
"""

import difflib
import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, Lt, MinLen

Count = Annotated[int, Ge(1)]
NaturalNumber = Annotated[int, Ge(0)]
Positive = Annotated[float, Gt(0)]
NonNegative = Annotated[float, Ge(0)]
Fraction = Annotated[float, Ge(0), Lt(1)]

KINDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    NoneType: "null",
    Any: "any value",
}
"""What a plain type is called in messages."""
SHOWN = 120
"""Characters of a value that a message shows."""


class OptionsError(ValueError):
    """Options that are wrong, one line of `faults` each."""

    def __init__(self, faults: Iterable[str]) -> None:
        self.faults = list(faults)
        super().__init__("\n".join(self.faults))


class CheckedOptions:
    """Base of option dataclasses: an instance whose fields do not fit their annotations is refused.

    Raises:
        OptionsError: for every field that does not fit.
    """

    config_group: ClassVar[str] = ""
    """The config group whose keys the fields are, for messages."""

    def __post_init__(self) -> None:
        if faults := option_faults(type(self), vars(self), group=self.config_group):
            raise OptionsError(faults)


@dataclass(frozen=True)
class Signature:
    """The options of a class by name, those without a default, and whether it takes others as well."""

    annotations: Mapping[str, Any]
    required: frozenset[str]
    open: bool


def fault(key: str, value: object, rule: str) -> str:
    """Return the line for one wrong value: key, value, rule."""
    text = repr(value)
    return f"`{key}` (={text if len(text) <= SHOWN else f'{text[: SHOWN - 3]}...'}) {rule}"


def option_faults(
    kind: type, values: Mapping[str, Any], *, group: str, signature: Signature | None = None
) -> list[str]:
    """Return a line for each of the `values` that `kind` does not take, and for each that is missing.

    `signature`: by default that of `kind`.
    """
    signature, prefix = signature or signature_of(kind), f"{group}." if group else ""
    faults = []
    for key, value in values.items():
        if key in signature.annotations:
            annotation = signature.annotations[key]
            if not matches_annotation(annotation, value):
                faults.append(fault(f"{prefix}{key}", value, f"must be {describe(annotation)}"))
        elif not signature.open:
            faults.append(fault(f"{prefix}{key}", value, f"is not an option here; {near(key, signature.annotations)}"))
    missing = sorted(signature.required - set(values))
    return [
        *faults,
        *(f"`{prefix}{key}` is missing: it must be {describe(signature.annotations[key])}" for key in missing),
    ]


def near(key: object, known: Iterable[str]) -> str:
    """Return a hint: the known names that are like `key`, or all of them."""
    names = sorted(known)
    if close := difflib.get_close_matches(str(key), names, n=3):
        return f"did you mean {' or '.join(close)}?"
    return f"there are: {', '.join(names)}"


@cache
def signature_of(kind: type) -> Signature:
    """Return the options of a dataclass, or of another class by the parameters of its constructor."""
    parameters = list(inspect.signature(kind).parameters.values())
    if is_dataclass(kind):
        hints = _hints(kind)
        names = [one.name for one in fields(kind) if one.init]
    else:
        hints = _hints(vars(kind).get("__init__", kind))
        named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        names = [one.name for one in parameters if one.kind in named]
    required = {one.name for one in parameters if one.default is inspect.Parameter.empty} & set(names)
    is_open = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters)
    return Signature({name: hints.get(name, Any) for name in names}, frozenset(required), is_open)


def _hints(target: Any) -> dict[str, Any]:
    try:
        return get_type_hints(target, include_extras=True)
    except (NameError, TypeError):  # names that only a type checker imports
        return {}


def matches_annotation(annotation: Any, value: object) -> bool:
    """Return whether `value` is of the annotated type and within its range; a list serves for a tuple."""
    validator = _validator(annotation)
    if validator is None:
        return True
    from pydantic import ValidationError  # noqa: PLC0415 - slow to import

    try:
        validator.validate_python(_tuples(value))
    except ValidationError:
        return False
    return True


@cache
def _validator(annotation: Any) -> Any:
    """Return pydantic's validator of an annotation; None for a type that it cannot judge."""
    from pydantic import ConfigDict, PydanticUserError, TypeAdapter  # noqa: PLC0415 - slow to import

    strict = ConfigDict(strict=True, allow_inf_nan=False)
    try:
        return TypeAdapter(annotation, config=strict)
    except PydanticUserError:
        return None


def _tuples(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, Sequence) and not isinstance(value, str) else value


def describe(annotation: Any) -> str:
    """Return in words what a value of this annotation is: `a whole number of at least 1`."""
    generic, arguments = get_origin(annotation), get_args(annotation)
    if generic is Annotated:
        text = describe(arguments[0])
        if any(isinstance(one, MinLen) for one in arguments[1:]):
            head, bracket, entries = text.partition(" (")
            return f"{head} that is not empty{bracket}{entries}"
        return f"{text}{_range(arguments[1:])}"
    if generic is Literal:
        return _either([repr(one) if isinstance(one, str) else str(one).lower() for one in arguments])
    if generic in (Union, UnionType):
        return _either([describe(one) for one in arguments])
    if isinstance(generic, type):
        return _collection(generic, arguments)
    return KINDS.get(annotation) or f"of type {getattr(annotation, '__name__', annotation)}"


def _collection(generic: type, arguments: Sequence[Any]) -> str:
    if issubclass(generic, Mapping):
        return f"a mapping from {describe(arguments[0])} to {describe(arguments[1])}"
    if generic is tuple and arguments[-1] is not Ellipsis:
        return f"a list of {len(arguments)} ({', '.join(map(describe, arguments))})"
    return f"a list (each entry: {describe(arguments[0])})"


def _range(constraints: Sequence[Any]) -> str:
    low = next((one for one in constraints if isinstance(one, Ge | Gt)), None)
    high = next((one for one in constraints if isinstance(one, Le | Lt)), None)
    if low is not None and high is not None:
        start, end = (f"[{low.ge}", high) if isinstance(low, Ge) else (f"({low.gt}", high)
        return f" in {start}, {end.le}]" if isinstance(end, Le) else f" in {start}, {end.lt})"
    texts = [f" of at least {low.ge}" if isinstance(low, Ge) else f" above {low.gt}"] if low is not None else []
    texts += [f" of at most {high.le}" if isinstance(high, Le) else f" below {high.lt}"] if high is not None else []
    return "".join(texts)


def _either(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} or {parts[-1]}"
