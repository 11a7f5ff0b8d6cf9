"""What the pages in docs/ say: their code runs, and the names, options and overrides that they mention exist."""

import ast
import builtins
import inspect
import re
import sys
import types
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import instantiate
from torch import nn

from tests import test_conformance
from tests.helpers.names import CONF, choices, configured
from xlora_bench.cli.main import SUBCOMMANDS
from xlora_bench.nn.layers.base import REGISTRY

ROOT = CONF.parent
DOCS = ROOT / "docs"
PAGES = sorted(path.name for path in DOCS.glob("*.md"))
GIVEN = {"model", "name", "path", "state", "weight", "step", "optimizer", "fn", "x"}  # what a reader has at hand


def blocks(page, language):
    """Return the code blocks of a page."""
    return re.findall(rf"^```{language}\n(.*?)^```$", (DOCS / page).read_text(), re.DOTALL | re.MULTILINE)


def ran(monkeypatch, page):
    """Run a page's Python blocks, those that start with a path as the module there, and return what they define."""
    for key, value in dict(REGISTRY).items():
        monkeypatch.setitem(REGISTRY, key, value)
    names = {}
    for code in blocks(page, "python"):
        place = re.match(r"# (\S+)\.py\n", code)
        module = types.ModuleType(place[1].replace("/", ".") if place else page)
        monkeypatch.setitem(sys.modules, module.__name__, module)
        module.__dict__.update(names)
        exec(compile(code, f"{page}:{module.__name__}", "exec"), module.__dict__)
        names.update({key: value for key, value in vars(module).items() if not key.startswith("__")})
    return names


@pytest.fixture
def _registry():
    before = set(REGISTRY)
    yield
    for key in set(REGISTRY) - before:
        del REGISTRY[key]


@pytest.mark.usefixtures("_registry")
@pytest.mark.parametrize("page", PAGES)
def test_python_blocks_run(page, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    ran(monkeypatch, page)


@pytest.mark.usefixtures("_registry")
def test_toys_of_add_a_variant_keep_their_promises(monkeypatch, tmp_path):
    names = ran(monkeypatch, "add_a_variant.md")
    for text in blocks("add_a_variant.md", "yaml"):
        file = tmp_path / text.splitlines()[0].removeprefix("# ")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    composed = {name: searched(tmp_path, f"adapter={name}", "adapter.rank=4", "adapter.alpha=12") for name in TOYS}
    for name, starts in TOYS.items():
        adapter, start = (instantiate(composed[name][group]) for group in ("adapter", "init_scheme"))
        assert type(start).__name__ in starts
        monkeypatch.setattr(test_conformance, "variant", lambda _, adapter=adapter: adapter)
        monkeypatch.setattr(test_conformance, "part", lambda *_, start=start: start)
        for promise in test_conformance.PROMISES:
            promise(test_conformance.Case(name, start.name))
    assert isinstance(names["AdaptedProjection"](names["Projection"](3, 2)), nn.Module)
    task = instantiate(searched(tmp_path, "task=sarcasm").task)
    assert task.num_labels == 2
    assert instantiate(searched(tmp_path, "model=minilm_no_dropout").model).dropout == 0.0


TOYS = {"gain": {"SVDInit"}, "sign_lora": {"Signs"}}


def searched(folder, *overrides):
    """Return the primary config, with the groups in `folder`/conf beside ours."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", overrides=[*overrides, f"hydra.searchpath=[file://{folder}/conf]"])


def spans(page):
    """Return the code spans of a page's tables, the first column (what was written elsewhere) aside."""
    rows = [line.split(" | ") for line in (DOCS / page).read_text().splitlines() if line.startswith("| ")]
    return sorted({span for row in rows for span in re.findall(r"`([^`]+)`", " ".join(row[1:]))})


OVERRIDES = re.compile(r"[\w.]+=\S+( [\w.]+=\S+)*")
SPANS = spans("coming_from.md") if "coming_from.md" in PAGES else []


@pytest.mark.parametrize("span", [span for span in SPANS if OVERRIDES.fullmatch(span) and "(" not in span])
def test_overrides_compose(span):
    configured(*span.split())


@pytest.mark.parametrize("span", [span for span in SPANS if span.startswith("python -m xlora_bench -m ")])
def test_sweeps_compose(span):
    configured(*(token.split(",")[0] for token in span.split()[4:]))


@pytest.mark.parametrize("span", [span for span in SPANS if re.match(r"\[?[\w.= ]+\(", span)])
def test_calls_fit(span, monkeypatch, tmp_path):
    """Every name is known, every attribute is there, and every call could be bound."""
    monkeypatch.chdir(tmp_path)
    known = ran(monkeypatch, "coming_from.md") | {"nn": nn}
    tree = ast.parse(span.removeprefix("init_scheme="))
    bound = GIVEN | {
        node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            assert node.id in known or node.id in bound or hasattr(builtins, node.id), node.id
        if isinstance(node, ast.Call) and (called := resolved(node.func, known)) is not None:
            keywords = dict.fromkeys(keyword.arg for keyword in node.keywords)
            inspect.signature(called).bind(*node.args, **keywords)


def resolved(node, known):
    """Return the object that a dotted name stands for, None if it starts at a reader's own variable."""
    if isinstance(node, ast.Attribute):
        owner = resolved(node.value, known)
        return None if owner is None else getattr(owner, node.attr)
    return known.get(node.id) if isinstance(node, ast.Name) else None


@pytest.mark.parametrize("page", PAGES)
def test_files_and_modules_that_are_mentioned_exist(page):
    text = (DOCS / page).read_text()
    toys = {line for language in ("python", "yaml") for code in blocks(page, language) for line in code.splitlines()}
    for path in re.findall(r"\b(?:xlora_bench|tests|examples|conf|benchmarks)/[\w/.]+\.(?:py|yaml)\b", text):
        assert (ROOT / path).is_file() or f"# {path}" in toys, path
    assert not re.findall(r"python -m xlora_bench[.][\w.]*", text), "name the subcommand of xlora-bench"
    for word in re.findall(r"xlora-bench ([a-z]+) ", text):
        assert word in SUBCOMMANDS, word
    for link in re.findall(r"\]\((\w+\.md)", text):
        assert (DOCS / link).is_file(), link


@pytest.mark.parametrize("group", ["adapter", "init_scheme"])
def test_every_choice_is_on_the_page_of_variants(group):
    text = Path(DOCS / "variants.md").read_text()
    assert not [name for name in choices(group) if f"`{name}`" not in text]


def test_every_variant_has_its_error_in_the_table_of_the_exchange():
    text = (DOCS / "exchange.md").read_text()
    assert not [name for name in test_conformance.VARIANTS if f"| `{name}` |" not in text]
