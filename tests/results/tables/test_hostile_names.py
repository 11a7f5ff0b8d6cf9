"""Reports of runs whose names and reasons would act in Markdown, LaTeX or a spreadsheet."""

import csv

import pytest
from markdown_it import MarkdownIt
from rich.console import Console

from tests.helpers.records import grid
from xlora_bench.results.reports.report import write_report

NAME = "=1+1 | <b>x</b> $\\frac$ [red]_y_\x1b[31m\n\n**z**"


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
