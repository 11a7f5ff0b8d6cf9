"""`xlora-bench spectrum model=minilm`: singular values and energy of the pretrained weights, by rank."""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
import pandas as pd
import torch
from hydra.core.hydra_config import HydraConfig
from matplotlib.figure import Figure
from omegaconf import DictConfig, OmegaConf
from rich.table import Table

from xlora_bench.adapters.decompositions.factorizations import energy_rank, singular_values
from xlora_bench.cli.errors import run_clearly
from xlora_bench.runs.config_folder import CONFIGS
from xlora_bench.runs.console import console
from xlora_bench.runs.plain_config import refuse_environment
from xlora_bench.runs.run import writable
from xlora_bench.system.escape import csv as csv_text
from xlora_bench.system.escape import figure as figure_text
from xlora_bench.system.io import write_atomically

log = logging.getLogger(__name__)
ENERGIES = (0.80, 0.85, 0.90, 0.95, 0.99)
SHOWN_RANKS = 64


def spectra(model: torch.nn.Module, module_names: list[str]) -> dict[str, torch.Tensor]:
    """Return the singular values of each weight at `module_names`, descending."""
    layers: dict[str, Any] = {name: model.get_submodule(name) for name in module_names}
    return {name: singular_values(layer.weight) for name, layer in layers.items()}


def table(spectra: "dict[str, torch.Tensor]") -> pd.DataFrame:
    """Return one row per module: full rank, `sigma_1`, and the smallest rank for each energy share in `ENERGIES`.

    Energy of rank `r` is `sum_{i<=r} sigma_i^2 / sum_i sigma_i^2`."""
    rows = [
        {"module": module_name, "full_rank": len(values), "sigma_1": values[0].item()}
        | {f"rank_{round(100 * energy)}": energy_rank(values, energy) for energy in ENERGIES}
        for module_name, values in spectra.items()
    ]
    return pd.DataFrame(rows)


def draw(spectra: dict[str, torch.Tensor], path: Path, *, title: str) -> None:
    """Draw two heat maps (module x rank): `sigma_i / sigma_1`, and cumulative energy as a share of the total."""
    shown = min(SHOWN_RANKS, *(len(values) for values in spectra.values()))
    energy = [values.square().cumsum(0) / values.square().sum() for values in spectra.values()]
    maps = {
        "normalised singular value, $\\sigma_i / \\sigma_1$": (
            "viridis",
            [v / v[0] for v in spectra.values()],
        ),
        "cumulative energy, share of the whole spectrum": ("magma", energy),
    }
    figure = Figure(figsize=(16, 1.6 + 0.28 * len(spectra)), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for panel, (label, (colours, rows)) in zip(panels, maps.items(), strict=True):
        values = torch.stack([row[:shown] for row in rows]).numpy()
        image = panel.imshow(
            values, aspect="auto", cmap=colours, vmin=0, vmax=1, extent=(0.5, shown + 0.5, len(rows), 0)
        )
        panel.set(title=label, xlabel="rank $i$")
        figure.colorbar(image, ax=panel)
    panels[0].set_yticks([row + 0.5 for row in range(len(spectra))], list(spectra))
    figure.suptitle(title)
    for suffix in (".png", ".svg"):
        figure.savefig(path.with_suffix(suffix), dpi=150)


@hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="config")
def job(config: DictConfig) -> None:
    """Decompose the target weights of a model; write `<results_dir>/spectrum/<model>-<targets>/spectrum.*`."""
    from xlora_bench.system.log_levels import set_log_levels  # noqa: PLC0415 - slow to import

    set_log_levels()
    from xlora_bench.training.options import checked_part  # noqa: PLC0415 - slow to import

    refuse_environment(config)
    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    options = checked_part("model", plain["model"])
    model = options.load(num_labels=2, seed=0)
    module_names = checked_part("targets", plain["targets"]).names(model)
    choice: dict[str, Any] = HydraConfig.get().runtime.choices
    bits = "".join(f"-{kept}" for kept in (options.dtype, options.quantization) if kept is not None)
    folder = writable(
        Path(config.paths.results_dir).expanduser() / "spectrum" / f"{choice['model']}{bits}-{choice['targets']}"
    )
    values = spectra(model, module_names)
    frame = table(values)
    write_atomically(folder / "spectrum.csv", csv_text(frame))
    draw(values, folder / "spectrum", title=figure_text(f"{config.model.name}{bits}, targets {choice['targets']}"))

    shown = Table(
        "module",
        *(f"{round(100 * energy)} %" for energy in ENERGIES),
        title="Smallest rank that holds this share of the energy",
    )
    for row in frame.itertuples(index=False):
        shown.add_row(str(row.module).removeprefix(f"{model.base_model_prefix}."), *map(str, row[3:]))
    console().print(shown)
    log.info("Files: %s", folder)


def main(arguments: Sequence[str]) -> int:
    """Run the job with the overrides in `arguments`; return the exit code."""
    sys.argv = ["xlora-bench spectrum", *arguments]
    run_clearly(job)
    return 0
