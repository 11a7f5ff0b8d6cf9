"""Options to JSON and back. A file can name only classes that are already imported, so it cannot run code."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

Kind = TypeVar("Kind")

PACKAGE = "xlora_bench"
RENAMED = {
    "Gaussian": "GaussianInit",
    "Kaiming": "KaimingInit",
    "LDUStart": "LDUInit",
    "Orthonormal": "OrthonormalInit",
    "Own": "BuiltinInit",
    "QRStart": "QRInit",
    "SingularVectors": "SVDInit",
    "UnitDiagonal": "UnitDiagonalInit",
    "Zero": "ZeroInit",
}
"""Names of init schemes in adapter files of version 0.1, and their current names."""


def described(options: object) -> dict[str, Any]:
    """Return the class name and the fields of a dataclass of options, as JSON types."""
    fields = dataclasses.fields(options)  # type: ignore[arg-type]
    values = {field.name: plain(getattr(options, field.name)) for field in fields}
    return {"class": public_name(type(options)), "options": values}


def plain(value: Any) -> Any:
    """Return `value` with all mappings and sequences, such as Hydra's, converted to dicts and lists."""
    if isinstance(value, Mapping):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(part) for part in value]
    return value


def made(description: dict[str, Any], kind: type[Kind]) -> Kind:
    """Return the object of a `description` by `described`. Its class must be `kind` or derived from it.

    Raises:
        ValueError: if there is no such class, or the options do not fit it.
    """
    known = {public_name(derived): derived for derived in derived_classes(kind)}
    if not isinstance(description, dict) or not isinstance(description.get("options"), dict):
        raise ValueError("the file must give `class` and `options` of adapter, init_scheme and targets; save it again")
    wanted = current_name(str(description.get("class")))
    if wanted not in known:
        raise ValueError(f"the file names the class {wanted!r}; import its module first (known: {', '.join(known)})")
    try:
        return known[wanted](**description["options"])
    except TypeError as error:
        raise ValueError(f"the file's options do not fit {wanted}: {error}") from error


def public_name(kind: type) -> str:
    """Return `xlora_bench.<name>` for a class of this package, `<module>.<name>` for any other class."""
    module = PACKAGE if kind.__module__.startswith(f"{PACKAGE}.") else kind.__module__
    return f"{module}.{kind.__qualname__}"


def current_name(name: str) -> str:
    """Return the public name of a class that a file of version 0.1 names by its module path."""
    if not name.startswith(f"{PACKAGE}."):
        return name
    last = name.rpartition(".")[2]
    return f"{PACKAGE}.{RENAMED.get(last, last)}"


def derived_classes(kind: type[Kind]) -> Iterator[type[Kind]]:
    """Yield `kind` and all classes derived from it."""
    yield kind
    for derived in kind.__subclasses__():
        yield from derived_classes(derived)
