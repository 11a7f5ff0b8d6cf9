"""`xlora-bench --help`: what the program is for, its commands, and the config groups. Imports nothing that is slow."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

from xlora_bench.runs.config_folder import CONFIGS

WIDTH = 116
GROUPS = (
    *("adapter", "init_scheme", "targets", "model", "task", "optimizer", "scheduler", "trainer", "logger"),
    "callbacks",
)
"""Config groups, in the order of the page."""
PRIMARY = ("experiment", "paper")
"""Folders whose files are primary configs."""

ABOUT = "Compare LoRA variants honestly: trained on equal terms, over seeds, with mean, spread and n of each."
COMMANDS = (
    ("xlora-bench adapter=lu task=sst2 seed=1", "train one run; what is not set has the value of conf/config.yaml"),
    ("xlora-bench -m adapter=lora,lu seed=0,1,2", "sweep: every combination; ends with a table and a comparison"),
    ("xlora-bench --config-name NAME", "the sweep of a file, see below"),
    ("xlora-bench ... --dry-run", "list the runs and what they would cost; train none"),
    ("xlora-bench ... hydra/launcher=parallel", "all cores, or one run per GPU"),
    ("xlora-bench ... --cfg job", "print the composed config"),
    ("xlora-bench status [DIR]", "planned, running, interrupted, completed, collapsed, failed runs, and why"),
    ("xlora-bench retry [DIR]", "train the failed runs again"),
    ("xlora-bench report DIR", "one HTML page: answer, table, charts, every run; for any browser, offline"),
    ("xlora-bench table DIR", "the table of all recorded runs"),
    ("xlora-bench compare DIR", "every method against a reference, paired by seed"),
    ("xlora-bench diff RUN RUN", "why the numbers of two runs differ"),
    ("xlora-bench verify DIR", "train a sample of the runs again: the same digits?"),
    (
        "xlora-bench check adapter=mine",
        "prove a variant of yours: step 0, formula, merging, parameter count",
    ),
    ("xlora-bench evaluate ADAPTER task=NAME", "score a saved adapter: a run's, a file, a folder of peft"),
    ("xlora-bench spectrum model=minilm", "singular values and energy of the pretrained weights, by rank"),
    ("xlora-bench archive REPORT OUT", "pack the records of a table into one file"),
    ("xlora-bench wandb-view [DIR]", "a saved workspace and a report in W&B: score by rank and init, curves"),
    ("xlora-bench version", "the versions of this program and of the packages that it stands on"),
)
CODES = (
    "Exit code, the first that applies: 130 interrupted (the same command continues), 1 refused or wrong usage, 2 a "
    "run failed, 3 every run collapsed, 0."
)
MORE = (
    "More: `xlora-bench COMMAND --help`; README.md; docs/sweeps.md (rules, tuning, parallel, tab completion), "
    "docs/variants.md (the equation of each adapter), docs/add_a_variant.md. `--hydra-help` has Hydra's own options."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the page; return the exit code."""
    print(page())  # noqa: T201 - the answer of this command; rich is slow to import
    return 0


def page() -> str:
    """Return the help page."""
    width = max(len(command) for command, _ in COMMANDS)
    lines = [ABOUT]
    lines += ["", *(f"  {command:{width}}  {what}" for command, what in COMMANDS)]
    lines += [
        "",
        "Config groups (GROUP=CHOICE; any other key is KEY=VALUE, such as adapter.rank=8 optimizer.lr=1e-3):",
        "",
    ]
    for group in GROUPS:
        lines += listed(f"{group}=", choices(group))
    lines += ["", "Primary configs (--config-name NAME):", ""]
    for folder in PRIMARY:
        lines += listed("", [f"{folder}/{name}" for name in choices(folder)])
    return "\n".join([*lines, "", *textwrap.wrap(CODES, WIDTH), "", *textwrap.wrap(MORE, WIDTH)])


def choices(group: str, *, folder: Path = CONFIGS) -> list[str]:
    """Return the choices of a config group, without its shared parts (`_*.yaml`)."""
    return sorted(path.stem for path in (folder / group).glob("*.yaml") if not path.stem.startswith("_"))


def listed(name: str, values: Sequence[str]) -> list[str]:
    """Return a group and its choices as indented lines."""
    indent = f"  {name:13} " if name else "  "
    return textwrap.wrap(
        " ".join(values), WIDTH, initial_indent=indent, subsequent_indent=" " * len(indent), break_on_hyphens=False
    )
