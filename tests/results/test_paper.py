import csv
import io

import pytest

from tests.results.records import grid
from xlora_bench.results.paper import Paper
from xlora_bench.results.tabulate import build_table

NODE = {
    "title": "T",
    "source": "Table 1",
    "note": "one seed",
    "rows": ["init_scheme"],
    "columns": ["model", "adapter.rank"],
    "row_labels": {"svd_left": "svd L"},
    "protocol": {"optimizer.lr": 1e-3, "task": "sst2"},
    "published": [
        {"init_scheme": start, "model": model, "adapter.rank": rank, "value": value}
        for model, base in (("bert", 0.5), ("distilbert", 0.7))
        for rank, more in ((2, 0.0), (16, 0.05))
        for start, value in (("svd_left", base + more), ("kaiming", base + more + 0.01))
    ],
}


def table(folder, model, **cell):
    some = [
        {"init_scheme": start, "model": model, "rank": rank, "seed": seed, "score": 0.6 + seed / 100, **cell}
        for start in ("kaiming", "svd_left")
        for rank in (2, 16)
        for seed in (0, 1)
    ]
    return build_table(grid(folder, some), title="ignored", paper=Paper.parse(NODE))


def lines(made):
    return list(csv.DictReader(io.StringIO(made.to_csv())))


def test_published_stand_beside_measured_in_the_papers_order(tmp_path):
    made = table(tmp_path, "bert")
    text = made.to_markdown()
    assert "| svd L | 0.6050 ± 0.0071 (2) [0.500] | 0.6050 ± 0.0071 (2) [0.550] |" in text
    assert text.index("| svd L |") < text.index("| kaiming |")
    assert "distilbert" not in text
    assert "In brackets: published, Table 1." in text
    assert "one seed" in text
    differences = {(line["init_scheme"], line["adapter.rank"]): float(line["difference"]) for line in lines(made)}
    assert differences["svd_left", "2"] == pytest.approx(0.605 - 0.5)
    assert differences["kaiming", "16"] == pytest.approx(0.605 - 0.56)


def test_numbers_of_other_models_are_named_and_never_differenced(tmp_path):
    made = table(tmp_path, "minilm")
    text = made.to_markdown()
    assert "| svd L | 0.6050 ± 0.0071 (2) | 0.6050 ± 0.0071 (2) |" in text
    assert "## distilbert (published, another model)" in text
    assert "| svd L | [0.700] | [0.750] |" in text
    assert "of other models (bert, distilbert), not of minilm" in text
    assert not any(line["difference"] for line in lines(made))
    assert "distilbert (published, another model)" in made.to_latex()


def test_another_protocol_is_named_and_never_differenced(tmp_path):
    made = table(tmp_path, "bert", lr=1e-4)
    assert "another protocol, so no difference is taken: optimizer.lr = 0.0001 (published: 0.001)" in made.to_markdown()
    assert "[0.500]" in made.to_markdown()
    assert not any(line["difference"] for line in lines(made))


def test_a_second_setting_is_a_column_of_its_own(tmp_path):
    both = [{"init_scheme": "svd_left", "model": "bert", "rank": 2, "lr": lr, "score": lr} for lr in (1e-3, 1e-4)]
    made = build_table(grid(tmp_path, both), title="", paper=Paper.parse(NODE))
    assert made.axes.columns == ("model", "adapter.rank", "optimizer.lr")
    assert [line["n"] for line in lines(made)] == ["1", "1"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": ""}, "source"),
        ({"columns": ["adapter.rank"]}, "exactly the keys"),
        ({"published": [{"init_scheme": "kaiming", "model": "bert", "value": 0.5}]}, "exactly the keys"),
        ({"titel": "x"}, "titel"),
        (
            {"columns": ["task"], "published": [{"init_scheme": "kaiming", "task": "sst2", "value": 1}]},
            "model",
        ),
    ],
)
def test_incomplete_papers_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Paper.parse({**NODE, **change})


def test_a_paper_needs_its_axes():
    with pytest.raises(ValueError, match="columns"):
        Paper.parse({"title": "t", "rows": []})
