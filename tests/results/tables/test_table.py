import csv
import io
import math

import pytest
from rich.console import Console

from tests.helpers.records import grid
from xlora_bench.results.frame.pivot_axes import PivotAxes, find_pivot_axes
from xlora_bench.results.tables.build_table import build_table


def runs_of(**by_adapter):
    """Runs of adapters at rank 2 and 8, from the scores of their seeds."""
    return [
        {"adapter": adapter, "rank": rank, "seed": seed, "score": score}
        for adapter, scores in by_adapter.items()
        for rank in (8, 2)
        for seed, score in enumerate(scores)
    ]


@pytest.fixture
def table(tmp_path):
    some = runs_of(lora=(0.5, 0.6) * 3, lu=(0.9, 0.91) * 3)
    some += [
        {
            "adapter": "lu",
            "rank": 2,
            "seed": 6,
            "status": "collapsed",
            "reason": "NaN loss",
            "score": math.nan,
        }
    ]
    some += [{"adapter": "loldu", "rank": 2, "status": "failed", "reason": "out of memory"}]
    return build_table(grid(tmp_path, some), title="A | title_1")


def test_axes_are_what_varies_and_alpha_tied_to_the_rank_is_none(tmp_path):
    assert find_pivot_axes(grid(tmp_path, runs_of(lora=(0.5, 0.6), lu=(0.5,)))) == PivotAxes(
        rows=("adapter",), columns=("adapter.rank",)
    )


def test_a_free_alpha_and_a_free_learning_rate_are_axes(tmp_path):
    some = [{"alpha": alpha, "lr": lr, "rank": 4} for alpha in (1, 2) for lr in (1e-3, 1e-4)]
    assert find_pivot_axes(grid(tmp_path, some)) == PivotAxes(rows=("adapter.alpha", "optimizer.lr"), columns=())


def test_an_adapters_own_start_is_no_axis(tmp_path):
    some = [{"adapter": "lora"}, {"adapter": "loldu", "init_scheme": "ldu"}]
    assert find_pivot_axes(grid(tmp_path, some)) == PivotAxes(rows=("adapter",), columns=())


def test_one_run_makes_a_table_of_one_place(tmp_path):
    table = build_table(grid(tmp_path, [{"score": 0.5}]), title="t")
    assert "| lora | 0.5000 (1) |" in table.to_markdown()


def test_no_run_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="no run"):
        build_table(grid(tmp_path, []), title="t")


def test_markdown_shows_spread_count_bold_and_bad_runs(table):
    lines = table.to_markdown().splitlines()
    assert "| adapter | rank 2 | rank 8 |" in lines
    assert "| lora | 0.5500 ± 0.0548 (6) | 0.5500 ± 0.0548 (6) |" in lines
    assert "| lu | **0.9050 ± 0.0055 (6)** 1 collapsed | **0.9050 ± 0.0055 (6)** |" in lines
    assert "| loldu | 1 failed | - |" in lines
    assert any(line.startswith("- Collapsed: ") and line.endswith(": NaN loss") for line in lines)
    assert any(line.startswith("- Failed: ") and line.endswith(": out of memory") for line in lines)


def test_runs_that_fell_for_one_reason_share_a_line(tmp_path):
    fallen = [{"seed": seed, "status": "collapsed", "reason": "NaN loss", "score": math.nan} for seed in (1, 2)]
    frame = grid(tmp_path, [{"seed": 0, "score": 0.5}, *fallen])
    names = ", ".join(frame[frame["status"] == "collapsed"]["run_id"])
    assert f"Collapsed: {names}: NaN loss" in build_table(frame, title="t").notes


def test_one_run_or_overlap_is_never_bold(tmp_path):
    single = build_table(grid(tmp_path / "single", runs_of(lora=(0.1,), lu=(0.9,))), title="t")
    close = build_table(grid(tmp_path / "close", runs_of(lora=(0.5, 0.6) * 3, lu=(0.56, 0.59) * 3)), title="t")
    five = build_table(grid(tmp_path / "five", runs_of(lora=(0.1,) * 5, lu=(0.9,) * 5)), title="t")
    assert "**" not in single.to_markdown() + close.to_markdown() + five.to_markdown()
    assert "needs at least six seeds" in five.to_markdown()


def test_latex_is_escaped_and_balanced(table):
    text = table.to_latex()
    assert r"\caption{A \textbar{} title\_1}" in text
    assert r"1 collapsed & \textbf{0.9050 $\pm$ 0.0055 (6)}" in text
    assert text.count(r"\begin{") == text.count(r"\end{") == 2
    body = text[text.index(r"\toprule") : text.index(r"\bottomrule")]
    assert {line.count("&") for line in body.splitlines() if "&" in line} == {2}


def test_csv_is_tidy_and_exact(table):
    lines = {(line["adapter"], line["adapter.rank"]): line for line in csv.DictReader(io.StringIO(table.to_csv()))}
    assert len(lines) == 6
    assert float(lines["lora", "2"]["mean"]) == pytest.approx((0.5 + 0.6) / 2, abs=1e-15)
    low, high = (float(lines["lora", "2"][name]) for name in ("interval_low", "interval_high"))
    assert (high - low) / 2 == pytest.approx(2.5706 * 0.05477 / math.sqrt(6), rel=1e-3)  # t(5), 97.5 %
    assert lines["lu", "2"]["collapsed"] == lines["loldu", "2"]["failed"] == "1"
    assert lines["lu", "8"]["separable_best"] == "True"


def test_terminal_shows_the_same(table):
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(table.to_rich())
    text = console.export_text()
    assert "0.9050 ± 0.0055 (6) 1 collapsed" in text
    assert "A | title_1" in text


def test_two_column_axes_make_a_part_each(tmp_path):
    some = [{"model": model, "rank": rank} for model in ("minilm", "bert") for rank in (2, 8)]
    text = build_table(grid(tmp_path, some), title="t").to_markdown()
    assert "## minilm" in text
    assert "## bert" in text
    assert text.count("| adapter | rank 2 | rank 8 |") == 2


def test_unreadable_records_are_told_in_the_notes(tmp_path):
    grid(tmp_path, [{}])
    broken = tmp_path / "runs" / "broken" / "record.json"
    broken.parent.mkdir()
    broken.write_text("{")
    text = build_table(grid(tmp_path, [{}]), title="t").to_markdown()
    assert f"Unreadable, not in the table: {broken}" in text


def test_fixed_and_tuned_are_columns_and_trials_are_in_no_table(tmp_path):
    some = [
        {"adapter": adapter, "lr": lr, "seed": seed, "score": score}
        for adapter, rates in (("lora", (1e-3, 2e-3, 5e-3)), ("lu", (1e-3, 4e-3, 5e-3)))
        for lr, score in zip(rates, (0.5, 0.6, 0.1), strict=True)
        for seed in (0, 1)
    ]
    frame = grid(tmp_path, some)
    frame["tuning"] = ["fixed", "fixed", "tuned", "tuned", "trial", "trial"] * 2
    table = build_table(frame, title="t")
    assert table.axes == PivotAxes(rows=("adapter",), columns=("tuning",))
    text = table.to_markdown()
    assert "| adapter | fixed | tuned |" in text
    assert "| lu | 0.5000 ± 0.0000 (2) | 0.6000 ± 0.0000 (2) |" in text
    assert "0.1000" not in text
