"""Options as JSON and back; only classes that are imported already can be named, so that no file can run code."""

import dataclasses
from collections.abc import Iterator
from typing import Any, TypeVar

Kind = TypeVar("Kind")


def described(options: object) -> dict[str, Any]:
    """Return the class and the fields of a dataclass of plain options."""
    return {"class": qualified_name(type(options)), "options": dataclasses.asdict(options)}  # type: ignore[call-overload]


def made(description: dict[str, Any], kind: type[Kind]) -> Kind:
    """Return the object that `described` described, of a class derived from `kind`.

    Raises:
        ValueError: if there is no such class, or it has no such options.
    """
    known = {qualified_name(derived): derived for derived in derived_classes(kind)}
    wanted = description["class"]
    if wanted not in known:
        raise ValueError(f"the file names the class {wanted!r}; import its module first (known: {', '.join(known)})")
    try:
        return known[wanted](**description["options"])
    except TypeError as error:
        raise ValueError(f"the file's options do not fit {wanted}: {error}") from error


def qualified_name(kind: type) -> str:
    """Return the module and the name of a class."""
    return f"{kind.__module__}.{kind.__qualname__}"


def derived_classes(kind: type[Kind]) -> Iterator[type[Kind]]:
    """Yield `kind` and all classes derived from it."""
    yield kind
    for derived in kind.__subclasses__():
        yield from derived_classes(derived)
