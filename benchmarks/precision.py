"""Rounding of the update in each precision, and number and time of the conformance tests.

    python -m benchmarks.precision

The number is `|u - u'| / |u'|` for the update u that an adapted linear layer (24 x 24, rank 4) adds to its output, when
each trained entry has moved; u' is computed in fp64 from the same factors, the same input and the same output of the
frozen layer. `bf16`, `fp16`, `fp64`: the dtype of the frozen weights; the factors are fp32, in an fp64 model fp64.
`-mixed`: autocast with fp32 weights. The conformance tests bound the error by twice that of LoRA
(`rounds_no_more_than_lora`); `make conformance` runs them for every layer type. Shown is the worst error over the init
schemes that a variant takes.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator

import pandas as pd
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from benchmarks.options import parser, started
from benchmarks.tables import publish
from xlora_bench.adapters import Adapter
from xlora_bench.adapters.init_schemes import InitScheme
from xlora_bench.runs.config_folder import CONFIGS
from xlora_bench.training.conformance import PRECISIONS, Case, comparable, rejection
from xlora_bench.training.conformance.promises import update_error

CASES = (
    "A case is one promise for one variant, init scheme, layer type, precision and device. Two processes of one thread."
)
SUITES = [
    ("make test-quick: linear layers in fp32", "", "-m", "not slow"),
    ("make test: every precision", ""),
    ("make conformance: also every layer type in every precision", "1"),
]


def main() -> None:
    """Write the tables `precision` and `conformance`."""
    options = started(parser(__doc__, rounds=1))
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        init_schemes = [
            instantiate(compose("config", [f"init_scheme={name}"]).init_scheme) for name in names("init_scheme")
        ]
        rows = [row(name, adapter, init_schemes) for name, adapter in variants()]
    publish(
        "precision", pd.DataFrame(rows), title="Precision", notes=__doc__.split("\n\n", 2)[2], folder=options.results
    )
    suites = [suite(command, *options) for command, *options in SUITES]
    publish("conformance", pd.DataFrame(suites), title="Conformance", notes=CASES, folder=options.results)


def variants() -> Iterator[tuple[str, Adapter]]:
    """Yield the native variants by name, each set of options once."""
    known: list[Adapter] = []
    for name in names("adapter"):
        adapter = instantiate(compose("config", [f"adapter={name}"]).adapter)
        if isinstance(adapter, Adapter) and comparable(adapter) not in known:
            known.append(comparable(adapter))
            yield name, comparable(adapter)


def names(group: str) -> list[str]:
    """Return the choices of a config group."""
    return sorted(path.stem for path in (CONFIGS / group).glob("[!_]*.yaml"))


def row(name: str, adapter: Adapter, init_schemes: list[InitScheme]) -> dict[str, object]:
    """Return the worst error of a variant in each precision."""
    fitting = [one for one in init_schemes if rejection(adapter, one, "linear") is None]
    worst = {
        precision: max(update_error(Case(adapter, one, "linear", precision).perturbed()) for one in fitting)
        for precision in PRECISIONS
    }
    return {"variant": name, "inits": len(fitting), **{key: f"{value:.1e}" for key, value in worst.items()}}


def suite(command: str, full: str, *options: str) -> dict[str, object]:
    """Run the conformance tests and return their number and time."""
    pytest = [sys.executable, "-m", "pytest", "-n", "2", "--dist", "loadgroup", "-p", "no:cacheprovider"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "XLORA_BENCH_FULL": full}
    arguments = [*pytest, "tests/test_conformance.py", *options]
    last = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=True).stdout.splitlines()[
        -1
    ]
    counts = {word: int(number) for number, word in re.findall(r"(\d+) (passed|skipped)", last)}
    [seconds] = re.findall(r"in ([\d.]+)s", last)
    return {"conformance tests of": command, "cases": counts["passed"], "seconds": round(float(seconds))}


if __name__ == "__main__":
    main()
