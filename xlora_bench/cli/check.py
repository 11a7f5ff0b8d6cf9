"""`xlora-bench check adapter=mine`: does a variant keep the promises that make its numbers comparable?"""

import argparse
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from xlora_bench.cli.composing import Composer, add_config_arguments, composing, import_from_working_folder, is_given
from xlora_bench.cli.errors import run_clearly
from xlora_bench.runs.console import console

if TYPE_CHECKING:
    from xlora_bench.adapters.init_schemes import InitScheme


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a line per case; return the exit code (1: a promise failed, or every case was refused)."""
    parser = argparse.ArgumentParser(
        prog="xlora-bench check",
        description="Prove a variant on small layers: a line per init scheme and layer type, which is ok, refused with "
        "the reason, or FAILED with the promise and the numbers. Exit code 1 if a promise failed.",
        epilog="example: xlora-bench check adapter=mine --config-dir conf (with conf/adapter/mine.yaml; its class may "
        "lie in the working folder). Without init_scheme=NAME it goes through all of them. Rank and alpha are 4 and 12 "
        "unless given; dropout, biases and patterns are left out.",
    )
    add_config_arguments(parser)
    options = parser.parse_intermixed_args(arguments)
    codes: list[int] = []
    run_clearly(lambda: codes.append(check(options)))
    return codes[0]


def check(options: argparse.Namespace) -> int:
    """Check the variant of the composed config; return the exit code.

    Raises:
        ValueError: if the config's `adapter` is no native variant.
    """
    from xlora_bench.system.log_levels import set_log_levels  # noqa: PLC0415 - slow to import; --help must answer at once

    set_log_levels()
    from xlora_bench.adapters import Adapter  # noqa: PLC0415 - slow to import
    from xlora_bench.training.conformance import check_variant, comparable  # noqa: PLC0415 - slow to import
    from xlora_bench.training.options import checked_part  # noqa: PLC0415 - slow to import

    import_from_working_folder()
    overrides = options.overrides
    with composing(options.config_dir) as composer:
        config = composer.composed(overrides)
        adapter = checked_part("adapter", config["adapter"])
        if not isinstance(adapter, Adapter):
            raise ValueError(
                f"`adapter` (={type(adapter).__name__}) is a baseline or a method of another library; check is for "
                "native variants, classes derived from xlora_bench.Adapter"
            )
        chosen = is_given("init_scheme", overrides)
        default = checked_part("init_scheme", config["init_scheme"])
        init_schemes = {default.name: default} if chosen else every_init_scheme(composer, overrides)
    keep = tuple(key for key in ("rank", "alpha") if is_given(f"adapter.{key}", overrides))
    terminal, statuses = console(), Counter[str]()
    for outcome in check_variant(comparable(adapter, keep=keep), init_schemes, default=None if chosen else default):
        statuses[outcome.status] += 1
        say(terminal, outcome.line())
    say(terminal, ", ".join(f"{statuses[status]} {status}" for status in ("ok", "refused", "FAILED")))
    if not statuses["ok"]:
        say(console(error=True), "error: no case could be checked: every one was refused or failed")
    return 0 if statuses["ok"] and not statuses["FAILED"] else 1


def every_init_scheme(composer: Composer, overrides: Sequence[str]) -> "dict[str, InitScheme]":
    """Return the init schemes of all YAML files by their names in the config."""
    from xlora_bench.training.options import checked_part  # noqa: PLC0415 - slow to import

    return {
        name: checked_part("init_scheme", composer.composed([*overrides, f"init_scheme={name}"])["init_scheme"])
        for name in composer.choices("init_scheme")
    }


def say(terminal: Console, line: str) -> None:
    """Print a line as it is."""
    terminal.print(line, soft_wrap=True, markup=False, highlight=False)
