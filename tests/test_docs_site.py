"""The hooks of the documentation site; `make docs-build` builds it, and a warning is an error there."""

import importlib.util
import logging
from types import SimpleNamespace

import pytest

from tests.helpers.names import ROOT

pytest.importorskip("mkdocs", reason="needs the extra `docs`")


@pytest.fixture(scope="module")
def hooks():
    spec = importlib.util.spec_from_file_location("docs_hooks", ROOT / "docs" / "hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def page(uri, *, outside):
    return SimpleNamespace(file=SimpleNamespace(src_uri=uri, generated_by="hooks" if outside else None))


@pytest.mark.parametrize(
    ("uri", "outside", "link", "on_the_site"),
    [
        ("README.md", True, "docs/sweeps.md#tuning", "sweeps.md#tuning"),
        ("speed.md", False, "../benchmarks/results/step.md", "benchmarks/results/step.md"),
        ("findings/minilm_glue/README.md", False, "../../../conf/config.yaml", "../../conf/config.yaml.md"),
        ("benchmarks/results/runs_cost.md", True, "end_to_end.md", "end_to_end.md"),
        ("sweeps.md", False, "scale.md", "scale.md"),
        ("scale.md", False, "../nowhere.md", "../nowhere.md"),
        ("scale.md", False, "https://arxiv.org/abs/2106.09685", "https://arxiv.org/abs/2106.09685"),
    ],
)
def test_links_lead_to_pages_of_the_site(hooks, uri, outside, link, on_the_site):
    changed = hooks.on_page_markdown(f"[text]({link})", page=page(uri, outside=outside), config=None, files=None)
    assert changed == f"[text]({on_the_site})"


@pytest.mark.parametrize(
    ("tag", "warned"),
    [
        ('<script src="https://cdn.example/katex.js"></script>', True),
        ('<link rel="stylesheet" href="//fonts.example/css">', True),
        ('<img alt="a" src=https://example.org/a.png>', True),
        ('<img alt="a" src="../a.png">', False),
        ('<a href="https://example.org">a link</a>', False),
    ],
)
def test_what_another_host_has_is_a_warning(hooks, caplog, tag, warned):
    with caplog.at_level(logging.WARNING):
        hooks.on_post_page(f"<p>{tag}</p>", page=page("sweeps.md", outside=False), config=None)
    assert [record.message for record in caplog.records] == [
        f"sweeps.md loads from another host: {tag[: tag.index('>') + 1]}"
    ] * warned
