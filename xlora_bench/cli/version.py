"""`xlora-bench version`: the version of this program and of the packages that it stands on."""

import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from xlora_bench.cli.parser import Parser

PACKAGES = ("torch", "transformers", "peft", "lightning", "hydra-core")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the versions, one a line; return the exit code."""
    parser = Parser(
        prog="xlora-bench version", description="The versions of xlora-bench, Python and the main packages."
    )
    parser.add_argument("--short", action="store_true", help="only that of xlora-bench, as `xlora-bench --version`")
    lines = [f"xlora-bench {version('xlora-bench')}"]
    if not parser.parse_args(arguments).short:
        lines += [f"python {platform.python_version()}", *(f"{name} {installed(name)}" for name in PACKAGES)]
    print("\n".join(lines))  # noqa: T201 - the answer of this command; rich is slow to import
    return 0


def installed(package: str) -> str:
    """Return the version of an installed package."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
