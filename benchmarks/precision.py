"""Rounding of the update in each precision: the worst relative error over the init schemes that a variant takes.

    python -m benchmarks.precision

The number is `|u - u'| / |u'|` for the update u that an adapted linear layer (24 x 24, rank 4) adds to its output, when
each trained entry has moved; u' is computed in fp64 from the same factors, the same input and the same output of the
frozen layer. `bf16`, `fp16`, `fp64`: the dtype of the frozen weights; the factors are fp32, in an fp64 model fp64.
`-mixed`: autocast with fp32 weights. The conformance tests bound the error by twice that of LoRA
(`rounds_no_more_than_lora`); `make conformance` runs them for every layer type.
"""

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


def main() -> None:
    """Write `precision.md` and `precision.csv`."""
    options = started(parser(__doc__, rounds=1))
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        init_schemes = [
            instantiate(compose("config", [f"init_scheme={name}"]).init_scheme) for name in names("init_scheme")
        ]
        rows = [row(name, adapter, init_schemes) for name, adapter in variants()]
    publish(
        "precision", pd.DataFrame(rows), title="Precision", notes=__doc__.split("\n\n", 2)[2], folder=options.results
    )


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


if __name__ == "__main__":
    main()
