"""The argument parser of the subcommands."""

import argparse
from typing import NoReturn

from xlora_bench.cli.exit_codes import REFUSED


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line and the exit code of wrong usage."""

    def error(self, message: str) -> NoReturn:
        """Print what is wrong and where to read more; exit."""
        self.exit(REFUSED, f"error: {message}; see `{self.prog} --help`\n")
