"""Texts that would act in an output are shown there as they are."""

import csv
import io
import logging

import pandas as pd
import pytest
from markdown_it import MarkdownIt
from rich.table import Table

from xlora_bench.runs.console import console
from xlora_bench.system import escape

EVIL = (
    "[red]x[/red]",
    "\x1b[31mred\x1b]0;title\x07",
    "a\nb\r\n\nc",
    "<script>alert(1)</script>",
    "![i](http://a.b/c.png)",
    "[l](http://a.b)",
    "[r]: http://a.b",
    "a | b",
    "__x__ _y_ **z** ~~w~~ `v`",
    r"\input{x} \\",
    "&lt; &amp; 50 % $x^2$ #1 ~",
    ":smile: \u202eabc",
)


@pytest.fixture
def shown_html():
    """Return a function that renders Markdown with tables, strikethrough and HTML, as GitHub does."""
    reader = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    return reader.render


@pytest.mark.parametrize("text", EVIL)
def test_markdown_shows_the_text_and_nothing_else(text, shown_html):
    plain = MarkdownIt("zero").render(escape.one_line(text))  # knows no Markdown at all
    as_item = shown_html(f"- {escape.markdown(text)}\n\n[r]\n")
    assert plain.strip().removeprefix("<p>").removesuffix("</p>") in as_item
    assert "<a" not in as_item
    row = shown_html(f"| h | i |\n|---|---|\n| {escape.markdown(text)} | 1 |\n")
    assert row.count("<td>") == 2


@pytest.mark.parametrize(
    "text", ["lora_fa", "[0.1, 0.2]", "p <= 0.05, n < 6", "rank 8, lr 2e-05", "a & b"], ids=lambda text: text
)
def test_usual_texts_stay_readable_in_markdown(text):
    assert escape.markdown(text) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\n\nb", "a b"),
        ("50 % & #1_x", r"50 \% \& \#1\_x"),
        (r"\input{x}", r"\textbackslash{}input\{x\}"),
        ("[2cm] x", "{}[2cm] x"),
        ("*x", "{}*x"),
        ("p <= 0.05 | n < 6, a >= b", r"p $\le$ 0.05 \textbar{} n \textless{} 6, a $\ge$ b"),
        ("--out \u00e9\u010d", r"-{}-out \'{e}\v{c}"),
        ("\U0001f600 \u4e2d", "{}[U+1F600] [U+4E2D]"),
    ],
)
def test_latex_runs_no_command_of_a_text(text, expected):
    assert escape.latex(text) == expected


def test_csv_has_no_formula_and_reads_back_the_rest():
    texts = ["=1+1", "+a", "-a", "@a", "\tb", "-0.5", "1e-3", "a,b\nc", None]
    frame = pd.DataFrame(
        {"=n": texts, "score": [-0.5] * len(texts), "count": pd.Series([1, None] * 4 + [2], dtype=object)}
    )
    rows = list(csv.reader(io.StringIO(escape.csv(frame))))
    assert rows[0] == ["'=n", "score", "count"]
    assert [row[0] for row in rows[1:]] == ["'=1+1", "'+a", "'-a", "'@a", "'\tb", "-0.5", "1e-3", "a,b\nc", ""]
    assert {row[1] for row in rows[1:]} == {"-0.5"}
    assert [row[2] for row in rows[1:3]] == ["1", ""]
    assert frame.columns[0] == "=n"  # the frame itself is unchanged


def test_the_terminal_gets_neither_markup_nor_control_characters(capsys):
    table = Table("[red]h[/red]", title="[bold]\x1b[31mt[/bold]")
    table.add_row("\x1b]0;title\x07 :smile:")
    terminal = console()
    terminal.print(table)
    terminal.print("[red]a[/red]\n\x1b[2Jb", soft_wrap=True)
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\x07" not in out
    for text in ("[red]h[/red]", r"[bold]\x1b[31mt[/bold]", r"\x1b]0;title :smile:", "[red]a[/red]\n\\x1b[2Jb"):
        assert text in out


def test_log_lines_have_no_control_characters():
    record = logging.LogRecord("x", logging.INFO, __file__, 1, "run %s\nends", ("\x1b[31m",), None)
    assert escape.PlainFormatter("%(message)s").format(record) == "run \\x1b[31m\nends"


def test_figures_show_dollars(tmp_path):
    from matplotlib.figure import Figure

    figure = Figure()
    figure.suptitle(escape.figure(r"$\frac$ $x"))
    figure.savefig(tmp_path / "figure.svg")
    with pytest.raises(ValueError, match="Expected"):
        Figure().suptitle(r"$\frac$").figure.savefig(tmp_path / "other.svg")
