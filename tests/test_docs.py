"""The README and the pages in docs/: their code runs, and the names, files and overrides that they mention exist."""

import importlib.util
import re
import shlex
import sys
import types
from pathlib import Path

import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

import xlora_bench
from tests import test_conformance
from tests.helpers.adapted import perturbed
from tests.helpers.names import CONF, choices, configured
from xlora_bench import LoRA, Targets, inject
from xlora_bench.cli.main import SUBCOMMANDS
from xlora_bench.nn.layers.base import REGISTRY
from xlora_bench.results.protocols.load_paper import load_paper
from xlora_bench.results.protocols.paper import Paper
from xlora_bench.results.protocols.published import STATUSES
from xlora_bench.runs.overrides import quoted
from xlora_bench.training import conformance
from xlora_bench.training.conformance import PROMISES, Case

ROOT = CONF.parent
DOCS = ROOT / "docs"
PAGES = sorted(path.name for path in DOCS.glob("*.md"))


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
        for promise in PROMISES:
            promise(Case(adapter, start))
    assert isinstance(names["AdaptedProjection"](names["Projection"](3, 2)), nn.Module)
    mlp = nn.Sequential(names["FusedMLP"](4, 6))
    inject.inject(mlp, LoRA(rank=2), targets=Targets(modules=["0"]))
    assert list(inject.deltas(mlp)) == ["0.adapted.gate", "0.adapted.value", "0.adapted.down"]
    expected = perturbed(mlp)(x := torch.ones(2, 4))
    torch.testing.assert_close(inject.remove(mlp, merged=True)(x), expected)
    task = instantiate(searched(tmp_path, "task=sarcasm").task)
    assert task.num_labels == 2
    assert instantiate(searched(tmp_path, "model=minilm_no_dropout").model).dropout == 0.0


TOYS = {"gain": {"SVDInit"}, "sign_lora": {"Signs"}}


def searched(folder, *overrides):
    """Return the primary config, with the groups in `folder`/conf beside ours."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", overrides=[*overrides, f"hydra.searchpath=[file://{folder}/conf]"])


TEXTS = ["README.md", "CONTRIBUTING.md", *(f"docs/{page}" for page in PAGES)]
PATH = r"(?<![\w/.])((?:xlora_bench|tests|examples|conf|benchmarks|docs|multirun)/[\w/.-]*\w\.(?:py|yaml|md))\b"


@pytest.mark.parametrize("text", TEXTS)
def test_files_and_modules_that_are_mentioned_exist(text):
    page = ROOT / text
    content = page.read_text()
    toys = {f"# {path}" for path in re.findall(r"^# (\S+\.(?:py|yaml))$", content, re.MULTILINE)}
    for path in re.findall(PATH, content):
        assert (ROOT / path).is_file() or f"# {path}" in toys, path
    for module in re.findall(r"python -m (benchmarks\.\w+)", content):
        assert importlib.util.find_spec(module), module
    assert not re.findall(r"python -m xlora_bench[.][\w.]*", content), "name the subcommand of xlora-bench"
    for word in re.findall(r"xlora-bench ([a-z]+) ", content):
        assert word in SUBCOMMANDS, word
    for link in re.findall(r"\]\(([^)#:]+)", content):
        assert (page.parent / link).exists(), link


def commands():
    """Return the command lines that start a run or a sweep: the page, and the words behind `xlora-bench`."""
    for text in TEXTS:
        for line in re.findall(r"^    xlora-bench (.*)$", (ROOT / text).read_text(), re.MULTILINE):
            words = shlex.split(line, comments=True)
            of_a_toy = "adapter=lora,gain" in words or "--config-dir" in words  # see tests/test_use_your_own.py
            if words[0] not in SUBCOMMANDS and not of_a_toy:
                yield pytest.param(words, id=f"{text}: {' '.join(words)}")


@pytest.mark.parametrize("words", list(commands()))
def test_commands_compose(words):
    words = [word for word in words if word not in ("-m", "--dry-run")]
    name = words.pop(1) if words[0] == "--config-name" else "config"
    pairs = [word.partition("=") for word in words if not word.startswith("--")]
    overrides = [quoted(f"{key}={value if value[:1] in '[{' else value.split(',')[0]}") for key, _, value in pairs]
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        compose(name, overrides=overrides)


@pytest.mark.parametrize("group", ["adapter", "init_scheme"])
def test_every_choice_is_on_the_page_of_variants(group):
    text = Path(DOCS / "variants.md").read_text()
    assert not [name for name in choices(group) if f"`{name}`" not in text]


def test_every_variant_has_its_error_in_the_table_of_the_exchange():
    text = (DOCS / "exchange.md").read_text()
    assert not [name for name in test_conformance.VARIANTS if f"| `{name}` |" not in text]


GROUPS = (
    *("adapter", "init_scheme", "targets", "model", "task", "optimizer", "scheduler", "trainer", "logger"),
    *("callbacks", "experiment"),
)


@pytest.mark.parametrize("group", GROUPS)
def test_page_of_the_command_line_lists_every_choice_of_a_group_and_no_other(group):
    row = next(
        line for line in (DOCS / "command_line.md").read_text().splitlines() if line.startswith(f"| `{group}=` |")
    )
    listed = {span for span in re.findall(r"`([^`]+)`", row.split("|")[2]) if re.fullmatch(r"\w+", span)}
    assert listed == set(choices(group))


def test_page_of_the_code_lists_every_layer_of_the_package():
    layers = [path.name for path in (ROOT / "xlora_bench").iterdir() if (path / "__init__.py").is_file()]
    assert sorted(re.findall(r"^\| `(\w+)/` \|", (DOCS / "code.md").read_text(), re.MULTILINE)) == sorted(layers)


@pytest.mark.parametrize(("text", "link"), [("README.md", "](docs/{})"), ("mkdocs.yml", ": {}\n")])
def test_readme_and_navigation_have_every_page(text, link):
    content = (ROOT / text).read_text()
    assert not [page for page in PAGES if link.format(page) not in content]


def test_readme_begins_with_numbers_of_the_first_result():
    scores, tests = (
        pd.read_csv(DOCS / f"findings/minilm_glue/{name}.csv", keep_default_na=False, na_values={"p_max_t": ""})
        for name in ("table", "comparison")
    )
    by_method = scores.set_index(["adapter", "adapter.spec", "task", "tuning"])
    head = (ROOT / "README.md").read_text().split("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)`(, B alone trains)? \| [\d,]+ \| (.+) \| (.+) \|$", head, re.MULTILINE)
    assert len(rows) == 6
    for adapter, spec, *shown in rows:
        for task, text in zip(("sst2", "stsb"), shown, strict=True):
            entry = by_method.loc[(adapter, "A_rand_hB_zero" if spec else "", task, "tuned")]
            mean, std = (f"{float(entry[name]):.3f}".lstrip("0") for name in ("mean", "std"))
            assert text == f"{mean} ± {std} ({entry['n']})", (adapter, task)
    significant = tests[
        tests["task"].isin(["sst2", "stsb"]) & (tests["tuning"] == "tuned") & (tests["p_max_t"] <= 0.05)
    ]
    assert "PiSSA and LoLDU are significantly worse on SST-2 (p = .031)" in head
    assert {*zip(significant["adapter"], significant["task"], strict=True)} == {("pissa", "sst2"), ("loldu", "sst2")}
    assert {*significant["p_max_t"]} == {0.03125}
    assert {*significant["verdict"]} == {"separable: worse"}


def test_api_page_has_every_public_name():
    listed = re.findall(r"^::: xlora_bench\.(\w+)$", (DOCS / "api.md").read_text(), re.MULTILINE)
    assert len(listed) == len(set(listed))
    assert {*listed, *(name for name in xlora_bench.inject.__all__ if name in dir(xlora_bench)), "__version__"} == {
        *dir(xlora_bench)
    }


def test_the_library_example_of_the_readme_runs(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    sizes = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    model = BertForSequenceClassification(BertConfig(vocab_size=10, **sizes))
    (code,) = re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    exec(code, {"model": model})
    assert {path.name for path in tmp_path.iterdir()} == {"mrpc.safetensors", "mrpc-for-peft"}


def table_after(page, text):
    """Return the rows of the first table behind `text`, as lists of cells, the head first."""
    lines = (DOCS / page).read_text().partition(text)[2].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[lines.index("") + 1 :]]
    return [row for index, row in enumerate(rows[: rows.index([""])]) if index != 1]


def test_step_times_on_the_page_of_speed_are_those_of_the_benchmark():
    measured = pd.read_csv(ROOT / "benchmarks/results/step.csv").set_index(["targets", "step"])["ratio"]
    for label, *shown in table_after("speed.md", "median\nof 20)")[1:]:
        name = label.replace("`", "").replace(": LoRA", " lora").replace(" 0.1", " .1").replace(", r = 8", "")
        name = name if name.startswith(("peft", "loralib")) else f"ours: {name}"
        assert shown == [f"{measured[targets, name]:.2f}" for targets in ("q,v", "all-linear")], label


def test_layout_times_on_the_page_of_speed_are_those_of_the_benchmark():
    measured = pd.read_csv(ROOT / "benchmarks/results/layout.csv").set_index(["work", "layout", "task"])["ratio"]
    (_, *tasks), *rows = table_after("speed.md", "no dropout), medians")
    for label, *shown in rows:
        assert shown == [f"{measured[label.split(',')[0], 'ours, packed', task]:.2f}" for task in tasks], label


def test_every_path_on_the_page_of_the_code_exists():
    spans = re.findall(r"`([\w./<>]+)`", (DOCS / "code.md").read_text())
    paths = [
        span
        for span in spans
        if "/" in span.rstrip("/") and not span.startswith(("runs/<id>", "attempts/<id>", "checkpoint/"))
    ]
    assert len(paths) > 30
    for path in paths:
        folder = ROOT if path.startswith(("conf/", "tests/")) else ROOT / "xlora_bench"
        assert list(folder.glob(re.sub(r"<\w+>", "*", path))), path


PAPERS = [name for name in choices("paper") if name != "quickstart"]


def test_page_of_protocols_lists_every_paper_with_the_status_of_its_numbers():
    rows = {name.strip("`"): status for name, _, status in table_after("protocols.md", "--aggregation mean\n")[1:]}
    assert sorted(rows) == PAPERS
    for name, status in rows.items():
        statuses = {number.status for number in load_paper(name).numbers}
        assert statuses == set(re.findall("|".join(STATUSES), status)), name


def test_the_paper_on_the_page_of_protocols_is_read():
    (text,) = blocks("protocols.md", "yaml")
    config = OmegaConf.create(text)
    paper = Paper.parse(OmegaConf.to_container(config.paper, resolve=True))
    assert [number.value for number in paper.numbers if number.column[1] == "rte"] == [0.866, 0.715]


def test_page_of_variants_has_the_default_init_and_the_parameter_count_of_each():
    rows = {
        name.strip("`"): (formula, count, init)
        for name, _, formula, count, init, _ in table_after("variants.md", "## Adapters\n")[1:]
    }
    assert sorted(rows) == test_conformance.VARIANTS
    for name, (formula, count, init) in rows.items():
        assert count == f"{instantiate(configured(f'adapter={name}').adapter).parameter_count(768, 768, 8):,}", name
        assert instantiate(configured(f"adapter={name}").init_scheme).name == init.strip("`"), name
        if name not in ("asymmetric", "loldu"):  # theirs depends on an option
            out = 24 if name == "cholesky" else 40
            terms = re.sub(r"\br (?=[a-z(])", "r * ", formula).replace("^", "**").replace("in)", "n)")
            expected = eval(terms, {"r": 4, "out": out, "n": 24})
            assert test_conformance.variant(name).parameter_count(out, 24, 4) == expected, name


def test_checks_on_the_page_of_variants_to_add_exist():
    rows = table_after("add_a_variant.md", "has the name of the check")[1:]
    names = {name for place, _ in rows for name in re.findall(r"^`(\w+)`", place)}
    assert len(names) > 8
    files = (Path(conformance.__file__).parent).glob("*.py")
    known = {*vars(test_conformance), *re.findall(r"def (\w+)", "".join(path.read_text() for path in files))}
    assert not names - known
