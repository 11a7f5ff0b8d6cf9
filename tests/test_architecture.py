"""The layout of the package: layers, cycles, public names, late imports and the words of names."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from importlinter.cli import EXIT_STATUS_ERROR, EXIT_STATUS_SUCCESS

import xlora_bench
from tests.helpers.names import ROOT

PACKAGE = ROOT / "xlora_bench"
FILES = sorted(PACKAGE.rglob("*.py"))
OUTSIDE = {
    "lightning.Trainer",
    *(f"torch.optim.{name}" for name in ("Adam", "SGD", "Adafactor")),
    *(f"lightning.pytorch.loggers.{name}" for name in ("TensorBoardLogger", "MLFlowLogger")),
    *(f"lightning.pytorch.callbacks.{name}" for name in ("EarlyStopping", "RichProgressBar")),
} | {
    f"hydra_plugins.xlora_bench.{name}"
    for name in (
        *("DryRunSweeper", "GridSweeper", "ParallelLauncher", "RayLauncher"),
        *("SerialLauncher", "SlurmLauncher", "SlurmWorkerLauncher"),
    )
}
"""Hydra wants its plugins in `hydra_plugins`; the others are torch's and Lightning's own."""

PUBLIC = {
    "LoRA",
    "LoRAPlus",
    "LoRAXS",
    "DoRA",
    "VeRA",
    "LU",
    "Cholesky",
    "LoLDU",
    "Orthogonal",
    "OrthogonalQR",
    "Asymmetric",
    "Baseline",
    "Peft",
    "KaimingInit",
    "GaussianInit",
    "OrthonormalInit",
    "ZeroInit",
    "UnitDiagonalInit",
    "SVDInit",
    "QRInit",
    "LDUInit",
    "BuiltinInit",
    "Targets",
    "Pretrained",
    "TextTask",
    "AdamW",
    "Schedule",
    "CSVLogs",
    "TrackioLogs",
    "WandbLogs",
    "SweepReport",
}
"""Every class of this package that a config may name. A name here never changes: it is part of a run's hash."""

OLD_WORDS = {
    "Asked",
    "Cell",
    "Origin",
    "Site",
    "Seat",
    "Shelf",
    "Moment",
    "Switch",
    "Named",
    "NamedHead",
    "Built",
    "Draft",
    "Planned",
    "Known",
    "Rounds",
    "Passage",
    "Reached",
    "Fresh",
    "Start",
    "Entry",
    "Axes",
    "Versus",
    "ask",
    "ensure",
    "identity",
    "said",
    "told",
    "found",
    "asked",
    "place",
    "seating",
    "remember",
    "remembered",
    "warm",
    "stamp",
    "quiet",
    "ragged",
    "anatomy",
    "gather",
    "refusal",
    "refusals",
    "restore",
    "after_step",
    "tabulate",
    "mixing",
    "outcomes",
    "stored",
    "versus",
    "signflip",
    "step_down",
    "separable",
    "half",
    "finding",
    "cell",
    "cells",
    "origin",
    "origins",
    "seat",
    "seats",
    "up",
    "down",
    "up0",
    "down0",
    "fits",
}
OLD_MODULES = OLD_WORDS | {
    "gram",
    "memory",
    "threads",
    "layout",
    "pack",
    "flat",
    "tree",
    "block",
    "origin",
    "explain",
    "axes",
    "entries",
}
EXCEPTIONS = {"inject/activation.py:restore"}
"""`file:word` of a name that is the right term there."""


def linted(folder: Path) -> subprocess.CompletedProcess[str]:
    """Check the contracts in a process of its own: import-linter turns off loggers that are there already."""
    code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    return subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)


def test_imports_go_downwards_without_cycles():
    done = linted(ROOT)
    assert done.returncode == EXIT_STATUS_SUCCESS, done.stdout
    assert "2 kept, 0 broken" in done.stdout


@pytest.mark.parametrize(
    "line",
    [
        "from xlora_bench.sweeps.sweeper import GridSweeper",
        "def late():\n    import xlora_bench.results.frame.collect",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from xlora_bench.training.train import train",
    ],
    ids=["plain", "late", "type checking"],
)
def test_an_upward_import_is_refused(tmp_path, line):
    for path in FILES:
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(path.read_text())
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    with (tmp_path / "xlora_bench" / "data" / "task.py").open("a") as file:
        file.write(f"\n{line}\n")
    done = linted(tmp_path)
    assert done.returncode == EXIT_STATUS_ERROR, done.stderr
    assert "Imports go downwards BROKEN" in done.stdout


def test_few_entries_at_the_top():
    entries = [path.name for path in PACKAGE.iterdir() if not path.name.startswith("__") and path.name != "py.typed"]
    assert len(entries) <= 12


def test_configs_name_public_classes_alone():
    named = {
        target
        for path in (ROOT / "conf").rglob("*.yaml")
        for target in re.findall(r"_target_: *(\S+)", path.read_text(encoding="utf-8"))
    }
    assert named - OUTSIDE == {f"xlora_bench.{name}" for name in PUBLIC}
    assert all(isinstance(getattr(xlora_bench, name), type) for name in PUBLIC)


def test_every_public_name_is_documented_and_importable():
    assert set(dir(xlora_bench)) >= PUBLIC
    for name in set(dir(xlora_bench)) - {"__version__"}:
        assert getattr(xlora_bench, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'Lora'"):
        _ = xlora_bench.Lora


def test_type_checkers_see_every_public_name_and_no_other():
    imports = [node for node in ast.walk(ast.parse((PACKAGE / "__init__.py").read_text())) if hasattr(node, "names")]
    seen = {alias.asname for node in imports for alias in node.names if alias.asname == alias.name}
    assert seen == set(dir(xlora_bench)) - {"__version__"}


def test_the_package_is_imported_fast_and_silently():
    code = "import time; t = time.perf_counter(); import xlora_bench, sys; print(time.perf_counter() - t)"
    code += "; assert not {'torch', 'transformers', 'hydra'} & set(sys.modules)"
    code += "; xlora_bench.inject.add_adapter; xlora_bench.LoRA(8)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not done.stderr
    assert float(done.stdout) < 1  # measured: 0.05


def test_one_file_imports_hydras_internals():
    files = [path.name for path in FILES if re.search(r"(from|import) hydra\._internal", path.read_text())]
    assert files == ["hydra_internals.py"]


def test_every_late_import_and_every_noqa_has_a_reason():
    bare = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in FILES
        for line in path.read_text().splitlines()
        if "# noqa" in line and not re.search(r"# noqa: [A-Z0-9, ]+ - \w", line)
    ]
    assert not bare


def names_in(path: Path) -> set[str]:
    """Return the names that a file gives to classes, functions, arguments, attributes and variables."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            names.add(node.attr)
    return names


def test_names_are_the_fields_terms():
    old = {f"{path.relative_to(PACKAGE)}:{name}" for path in FILES for name in names_in(path) & OLD_WORDS}
    assert old == EXCEPTIONS
    assert not [path for path in FILES if path.stem in OLD_MODULES]
