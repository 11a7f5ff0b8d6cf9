"""The page of a real sweep in headless Chromium (Debian's package `chromium`)."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.names import ROOT
from tests.helpers.records import grid
from xlora_bench.cli.report import main
from xlora_bench.results.reports.report import report_page
from xlora_bench.runs.record import Record

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.process,
    pytest.mark.xdist_group("browser"),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (Debian: apt-get install chromium)"),
]
SMALL = ("task=synth_single", "task.max_train_rows=64", "task.max_eval_rows=32", "monitor.every_n_steps=1")
GRID = ("adapter=lora,lu", "adapter.rank=2,4", "seed=0,1")
REASON = "ValueError: `adapter` (=cholesky) needs a square weight"


def sweep(results_dir, words):
    command = [sys.executable, "-m", "xlora_bench", "-m", *SMALL, *words, f"paths.results_dir={results_dir}"]
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    ended = sweep(folder, GRID)
    assert ended.returncode == 0, ended.stderr
    assert list(folder.glob("reports/*/report.html"))
    one = Record.read(next(folder.glob("runs/*/record.json")))
    lost = dataclasses.replace(one, run_id="f" * 16, status="failed", reason=REASON, metrics={}, files={})
    lost = dataclasses.replace(lost, choices={**one.choices, "adapter": "cholesky"})
    lost.write(folder / "runs" / lost.run_id / "record.json")
    assert main([str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def chromium():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium, results):
    """Return a function that opens the page; at the end, nothing was requested and no error was reported."""
    problems, contexts = [], []

    def visit(fragment="", *, path=results / "report.html", width=1280, scheme="light"):
        context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: problems.append(request.url) if is_outside(request.url, path) else None)
        page.goto(f"{path.as_uri()}{fragment}")
        page.wait_for_selector("html[data-ready=true]")
        return page

    yield visit
    for context in contexts:
        context.close()
    assert problems == []


def is_outside(address, path):
    return address.partition("#")[0] != path.as_uri() and not address.startswith(("data:", "blob:"))


def records(results):
    return [json.loads(path.read_text()) for path in sorted(results.glob("runs/*/record.json"))]


def texts(page, selector):
    return [" ".join(text.split()) for text in page.locator(selector).all_inner_texts()]


def see_all(page):
    """Scroll through the page, so that every chart is drawn."""
    for place in page.locator("main section:not([hidden]) .drawing").all():
        place.scroll_into_view_if_needed()
        place.locator("svg.marks, .marks svg").first.wait_for()


def test_it_says_what_was_measured(visit, results):
    page = visit()
    assert "Which of 3 methods" in page.locator("#answer h2").inner_text()
    assert "cannot be significantly better" in page.locator("#answer").inner_text()
    assert "9 runs (8 completed, 1 failed)" in page.locator("#answer .cost").inner_text()
    failed = page.locator("#failures").inner_text()
    assert "needs a square weight" in failed
    assert f"xlora-bench retry {results}" in failed
    see_all(page)
    assert page.locator("#differences svg.marks, #differences .marks svg").count() >= 2


def test_sorting_and_filtering_the_table(visit, results):
    page = visit()
    head = page.locator("#entries thead th", has_text="mean").first
    head.locator("button").first.click()
    column = [text for text in texts(page, "#entries tbody td:nth-child(4)") if text]
    assert [float(text) for text in column] == sorted(map(float, column))
    page.locator("#table .dt-search input").fill("lu")
    assert {row.split()[2] for row in texts(page, "#entries tbody tr")} == {"lu"}


def test_from_an_entry_to_its_runs_and_to_one_run(visit, results):
    page = visit()
    row = page.locator("#entries tbody tr", has_text="lora").first
    row.get_by_role("button").click()
    shown = texts(page, "#run-table tbody tr")
    assert len(shown) == 2
    assert all("lora" in line for line in shown)
    link = page.locator("#run-table tbody a").first
    run_id = link.inner_text()
    link.click()
    dialog = page.locator("dialog#run")
    dialog.wait_for()
    (record,) = (record for record in records(results) if record["run_id"] == run_id)
    text = dialog.inner_text()
    assert f"Run {run_id}" in text
    assert f"{record['metrics']['best']['accuracy']:.4g}" in text
    dialog.get_by_text("Config", exact=True).click()
    assert str(record["config"]["optimizer"]["lr"]) in dialog.inner_text()
    page.keyboard.press("Escape")
    assert not dialog.is_visible()
    page.get_by_role("button", name="Show all runs").click()
    assert len(texts(page, "#run-table tbody tr")) == 9


def test_the_address_of_a_run(visit, results):
    third = next(r for r in records(results) if r["choices"]["adapter"] == "lu" and r["seed"] == 1)
    page = visit(f"#run={third['run_id']}")
    assert f"Run {third['run_id']}" in page.locator("dialog#run").inner_text()
    assert "No such run" in visit("#run=nothing").locator("dialog#run").inner_text()


def test_the_difference_of_two_runs(visit, results):
    page = visit()
    for number in (0, 2):
        box = page.locator("#run-table tbody input").nth(number)
        box.focus()
        page.keyboard.press("Space")  # a click may miss it while charts are being drawn above
        assert box.is_checked()
    page.locator("#compare").click()
    text = page.locator("dialog#run").inner_text()
    assert "Difference of two runs" in text
    keys = texts(page, "dialog#run tbody th")
    one, two = (row for row in texts(page, "dialog#run thead th")[1:3])
    first, second = (next(r for r in records(results) if r["run_id"] == run_id) for run_id in (one, two))
    assert ("adapter.rank" in keys) == (first["config"]["adapter"]["rank"] != second["config"]["adapter"]["rank"])
    assert "optimizer.lr" not in keys


def test_the_keyboard_reaches_a_run(visit):
    page = visit()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.locator("#run-table tbody a").first.focus()
    page.keyboard.press("Enter")
    assert page.locator("dialog#run").is_visible()
    assert page.evaluate("document.activeElement.closest('dialog') !== null")


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_and_is_accessible(visit, width, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    page = visit(width=width, scheme=scheme)
    see_all(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(22, 23, 26)"
    assert dark == (scheme == "dark")
    found = axe.Axe().run(page).response["violations"]
    serious = [
        (each["id"], each["nodes"][0]["html"][:200]) for each in found if each["impact"] in ("serious", "critical")
    ]
    assert serious == []


def test_the_page_of_a_sweep_and_print(visit, results):
    path = min(results.glob("reports/*/report.html"), key=lambda path: path.stat().st_mtime)
    page = visit(path=Path(path))
    assert "Which of 2 methods" in page.locator("#answer h2").inner_text()
    assert page.pdf().startswith(b"%PDF")


def test_hostile_names_are_shown_as_text(visit, tmp_path):
    names = [
        "<img src=x onerror=document.title='hit'>",
        "</script><script>document.title='hit'</script>",
        "a|b\\c",
        "\N{ROCKET}",
        "y" * 200,
    ]
    runs = [{"adapter": name, "seed": seed, "score": 0.5 + seed / 10} for name in names for seed in (0, 1)]
    path = report_page(grid(tmp_path, runs), tmp_path / "r.html", title=names[0], results_dir=tmp_path)
    page = visit(path=path)
    see_all(page)
    assert page.title().startswith(names[0])
    assert page.locator("main img").count() == 0
    for name in names:
        assert page.locator("#entries tbody td", has_text=name).count() == 1
    page.locator("#run-table tbody a").first.click()
    page.get_by_text("Config", exact=True).click()
    assert names[0] in page.locator("dialog#run").inner_text()


def test_fifty_methods(visit, tmp_path):
    runs = [
        {"adapter": f"method{number}", "seed": seed, "score": number / 100 + seed / 10}
        for number in range(50)
        for seed in (0, 1)
    ]
    page = visit(
        path=report_page(grid(tmp_path, runs), tmp_path / "r.html", title="t", results_dir=tmp_path), width=390
    )
    see_all(page)
    assert page.locator("#legend button").count() == 50
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
