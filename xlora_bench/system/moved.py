"""Module commands of version 0.1 that are subcommands now."""

import sys
from typing import NoReturn


def say_moved(command: str) -> NoReturn:
    """Print the `command` to write instead, and exit with code 1."""
    module = sys.modules["__main__"].__spec__
    name = module.name.removesuffix(".__main__") if module else ""
    sys.stderr.write(f"error: `python -m {name}` is now `{command}`, with the same arguments\n")
    sys.exit(1)
