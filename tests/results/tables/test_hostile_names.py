"""Reports of runs whose names and reasons would act in Markdown, LaTeX or a spreadsheet."""

import csv
import shutil
import subprocess

import pytest
from markdown_it import MarkdownIt
from rich.console import Console

from tests.helpers.records import grid
from xlora_bench.results.reports.report import write_report
from xlora_bench.results.tables.build_table import build_table

NAME = "=1+1 | <b>x</b> $\\frac$ [red]_y_\x1b[31m\n\n**z**"
PAGE = r"\documentclass{article}\usepackage{booktabs,graphicx}\begin{document}\input{%s}\end{document}"


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """The folder of a report and its table: two methods with hostile names, and a failed run with such a reason."""
    folder = tmp_path_factory.mktemp("report")
    runs = [
        {"adapter": name, "task": task, "seed": seed, "score": 0.5 + seed / 10}
        for name in (NAME, "-b")
        for task in (f"t{NAME}", "u")
        for seed in range(3)
    ]
    runs.append({"adapter": NAME, "task": "u", "seed": 9, "status": "failed", "reason": f"Error: {NAME}"})
    table = write_report(grid(folder, runs), folder / "report", title=NAME, results_dir=folder)
    return folder / "report", table


@pytest.mark.parametrize("name", ["table.md", "comparison.md"])
def test_markdown_has_no_tags_and_whole_rows(report, name):
    html = MarkdownIt("commonmark").enable("table").render((report[0] / name).read_text())
    assert "<b>" not in html
    assert "&lt;b&gt;x&lt;/b&gt; $\\frac$ [red]_y_\\x1b[31m **z**" in html
    for table in html.split("<table>")[1:]:
        rows = table.partition("</table>")[0].split("<tr>")[1:]
        assert len({row.count("<td") + row.count("<th") - row.count("<thead") for row in rows}) == 1


def test_latex_has_no_command_of_a_name(report):
    text = (report[0] / "table.tex").read_text()
    assert r"\frac" not in text
    assert "\x1b" not in text
    assert r"\textbackslash{}frac" in text


@pytest.mark.process
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
@pytest.mark.parametrize("kind", ["hostile", "large"])
def test_latex_compiles_and_fits_the_page(report, tmp_path, kind):
    text = (report[0] / "table.tex").read_text()
    if kind == "large":
        signs = r"<= >= < > | _ ^ ~ -- \ { } & % # [x] *"
        signs += "\u00e9\u0159\u00df\u00b1\u00b7\u2212\u00d7\u03b1\u03b2\u4e2d\U0001f600"
        runs = [{"adapter": f"{signs} {m}", "task": f"task {t}"} for m in range(50) for t in range(8)]
        text = build_table(grid(tmp_path, runs), title=signs).to_latex()
    (tmp_path / "table.tex").write_text(text)
    (tmp_path / "page.tex").write_text(PAGE % "table.tex")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    for problem in ("Overfull", "Float too large", "Missing character"):
        assert problem not in done.stdout
    assert "\\begin{table}" not in text[text.rindex("\\footnotesize\\raggedright") :]


def test_csv_files_have_no_formula(report):
    for name in ("table.csv", "runs.csv", "comparison.csv"):
        with (report[0] / name).open(newline="") as lines:
            rows = list(csv.reader(lines))
        begun = {entry for row in rows for entry in row if entry.startswith(("=", "-b"))}
        assert not begun, name
        assert any(f"'{NAME}" in row for row in rows)


def test_figures_are_drawn(report):
    assert (report[0] / "comparison.csv").is_file()
    assert list(report[0].glob("*.svg"))


def test_rich_shows_names_on_any_console(report, capsys):
    Console(width=300).print(report[1].to_rich())
    out = capsys.readouterr().out
    assert "[red]_y_" in out
