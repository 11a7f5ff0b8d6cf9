import csv
import io

import pytest

from tests.helpers.records import grid
from xlora_bench.results.protocols.paper import Paper
from xlora_bench.results.protocols.selection import under
from xlora_bench.results.tables.build_table import build_table

NODE = {
    "title": "T",
    "source": "Table 1",
    "status": "pdf",
    "note": "one seed",
    "rows": ["init_scheme"],
    "columns": ["model", "adapter.rank"],
    "row_labels": {"svd_left": "svd L"},
    "protocol": {
        "config": {"task": "sst2"},
        "metric": {"sst2": "accuracy"},
        "selection": "best",
        "aggregation": "mean",
    },
    "rules": [{"when": {"task": "sst2"}, "set": {"optimizer.lr": 1e-3}}],
    "published": [
        {
            "model": model,
            "adapter.rank": [2, 16],
            "rows": [
                {"init_scheme": "svd_left", "values": [base, base + 0.05]},
                {"init_scheme": "kaiming", "values": [f"{base + 0.01:.2f}±.01", base + 0.06]},
            ],
        }
        for model, base in (("bert", 0.5), ("distilbert", 0.7))
    ],
}


def table(folder, model, *, paper=NODE, aggregation=None, selection="best", scores=(0.60, 0.61), **more):
    some = [
        {"init_scheme": start, "model": model, "rank": rank, "seed": seed, "score": score, **more}
        for start in ("kaiming", "svd_left")
        for rank in (2, 16)
        for seed, score in enumerate(scores)
    ]
    frame = under(grid(folder, some), selection)
    return build_table(frame, title="ignored", paper=Paper.parse(paper), aggregation=aggregation)


def lines(made):
    return {(line["init_scheme"], line["adapter.rank"]): line for line in csv.DictReader(io.StringIO(made.to_csv()))}


def test_published_stand_beside_measured_in_the_papers_order(tmp_path):
    made = table(tmp_path, "bert")
    text = made.to_markdown()
    assert "| svd L | 0.6050 ± 0.0071 (2) [0.500] | 0.6050 ± 0.0071 (2) [0.550] |" in text
    assert text.index("| svd L |") < text.index("| kaiming |")
    assert "distilbert" not in text.partition("In brackets")[0]
    assert "In brackets: published, Table 1 (read in the paper)." in text
    assert "one seed" in text
    found = lines(made)
    assert float(found["svd_left", "2"]["difference"]) == pytest.approx(0.605 - 0.5)
    assert float(found["kaiming", "16"]["difference"]) == pytest.approx(0.605 - 0.56)
    assert found["kaiming", "2"]["published_spread"] == "0.01"


def test_every_comparison_says_whether_the_published_value_is_inside_the_measured_interval(tmp_path):
    made = table(tmp_path, "bert", scores=(0.5, 0.51, 0.52))
    found = lines(made)
    half = 4.302653 * 0.01 / 3**0.5  # t(2), 97.5 %
    assert float(found["kaiming", "2"]["interval_high"]) == pytest.approx(0.51 + half, abs=1e-6)
    assert (found["kaiming", "2"]["published_inside"], found["kaiming", "16"]["published_inside"]) == ("True", "False")
    text = made.to_markdown()
    assert "## Measured against published" in text
    assert (
        "| kaiming | bert | 2 | 0.510 ± 0.010 (pdf) | 0.5100 ± 0.0100 (3) | +0.0000 | 0.4852 to 0.5348 | yes |" in text
    )
    assert text.count("Measured against published") == made.to_latex().count("measured against published") == 1


def test_one_run_has_no_interval_and_is_never_called_inside(tmp_path):
    assert "one run has none" in table(tmp_path, "bert", scores=(0.5,)).to_markdown()


def test_numbers_of_other_models_are_named_and_never_differenced(tmp_path):
    made = table(tmp_path, "minilm")
    text = made.to_markdown()
    assert "| svd L | 0.6050 ± 0.0071 (2) | 0.6050 ± 0.0071 (2) |" in text
    assert "## distilbert (published, another model)" in text
    assert "| svd L | [0.700] | [0.750] |" in text
    assert "of other models (bert, distilbert), not of minilm" in text
    assert not any(line["difference"] for line in lines(made).values())
    assert "distilbert (published, another model)" in made.to_latex()


@pytest.mark.parametrize(
    ("more", "protocol", "reason"),
    [
        ({"lr": 1e-4}, {}, "optimizer.lr: published 0.001, measured 0.0001"),
        ({"task": "cola"}, {}, "task: published sst2, measured cola"),
        ({}, {"metric": {"sst2": "matthews"}}, "metric: published matthews, measured accuracy"),
        ({}, {"start": {"sst2": "mnli"}}, "start: published mnli, measured base"),
        ({}, {"effective_batch": {"sst2": 64}}, "effective batch: published 64, measured 1"),
        ({}, {"selection": "last"}, "selection: published last, measured best"),
        ({}, {"aggregation": "median"}, "aggregation: published median, measured mean"),
        ({}, {"split": "test"}, "split: published test, measured validation"),
        ({"base": {"dtype": "bfloat16"}}, {}, "model.dtype: published"),
        ({"base": {"quantization": "int8"}}, {}, "model.quantization: published null, measured int8"),
        ({}, {"config": {"task": "sst2", "model.quantization": "int4"}}, "model.quantization: published int4"),
    ],
)
def test_another_protocol_is_refused_with_its_reason(more, protocol, reason, tmp_path):
    node = {**NODE, "protocol": {**NODE["protocol"], **protocol}}
    made = table(tmp_path, "bert", paper=node, aggregation="mean", **more)
    assert "| refused | " in made.to_markdown()
    assert reason in made.to_markdown()
    assert "[0.500]" in made.to_markdown()
    assert all(reason in line["refused"] and not line["difference"] for line in lines(made).values())


def test_what_the_paper_does_not_state_is_not_checked_and_said(tmp_path):
    node = {**NODE, "protocol": {"selection": None, "aggregation": None, "start": None}}
    made = table(tmp_path, "bert", paper=node)
    assert "The source does not state: selection, aggregation, start; not checked." in made.to_markdown()
    assert all(line["difference"] for line in lines(made).values())


def test_a_paper_chooses_the_aggregation(tmp_path):
    node = {**NODE, "protocol": {**NODE["protocol"], "aggregation": "median"}}
    made = table(tmp_path, "bert", paper=node, scores=(0.5, 0.6, 0.9))
    line = lines(made)["kaiming", "2"]
    assert (line["median"], line["interval_low"], line["interval_high"]) == ("0.6", "0.5", "0.9")
    assert float(line["half_iqr"]) == pytest.approx((0.75 - 0.55) / 2)
    assert float(line["interval_level"]) == 0.75
    assert "median ± half the distance between the quartiles" in made.to_markdown()


def test_a_second_setting_is_a_column_of_its_own(tmp_path):
    both = [{"init_scheme": "svd_left", "model": "bert", "rank": 2, "lr": lr, "score": lr} for lr in (1e-3, 1e-4)]
    made = build_table(grid(tmp_path, both), title="", paper=Paper.parse(NODE))
    assert made.axes.columns == ("model", "adapter.rank", "optimizer.lr")
    measured = [line for line in csv.DictReader(io.StringIO(made.to_csv())) if line["init_scheme"] == "svd_left"]
    assert [line["n"] for line in measured] == ["1", "1"]
    assert [bool(line["difference"]) for line in measured] == [False, True]  # sorted by learning rate


TASKS = {
    "title": "T",
    "source": "Table 2",
    "status": "pdf",
    "scale": 100,
    "rows": ["adapter"],
    "columns": ["model", "task"],
    "protocol": {"metric": {"sst2": "accuracy", "rte": "accuracy"}},
    "published": [
        {
            "model": "bert",
            "task": ["sst2", "rte"],
            "rows": [
                {"adapter": "lora", "values": [60, 70]},
                {"label": "Their own", "status": "memory", "values": [50, None]},
            ],
        }
    ],
}


def task_runs(**more):
    return [
        {"adapter": adapter, "model": "bert", "task": task, "seed": seed, "score": score + seed / 100}
        for adapter in ("lora", "lu")
        for task, score in (("sst2", 0.6), ("rte", 0.8))
        for seed in (0, 1)
    ]


def test_averages_are_computed_on_both_sides_over_the_same_tasks(tmp_path):
    made = build_table(grid(tmp_path, task_runs()), title="", paper=Paper.parse(TASKS))
    text = made.to_markdown()
    assert "| adapter | sst2 | rte | average |" in text
    assert "| lora | 0.6050 ± 0.0071 (2) [0.600] | 0.8050 ± 0.0071 (2) [0.700] | 0.7050 ± 0.0071 (2) [0.650] |" in text
    assert "| Their own | [0.500] | - | - |" in text
    assert "| lu | 0.6050 ± 0.0071 (2) | 0.8050 ± 0.0071 (2) | 0.7050 ± 0.0071 (2) |" in text


def test_an_average_needs_all_tasks_and_a_collapse_is_counted(tmp_path):
    runs = [run for run in task_runs() if run["adapter"] == "lora"]
    made = build_table(grid(tmp_path / "some", runs[:2]), title="", paper=Paper.parse(TASKS))
    assert "average |" not in made.to_markdown()
    runs[0]["status"] = "collapsed"
    made = build_table(grid(tmp_path / "all", runs), title="", paper=Paper.parse(TASKS))
    assert "(1) 1 collapsed, [0.650]" in made.to_markdown()


def test_a_number_from_memory_is_called_unverified(tmp_path):
    node = {**TASKS, "status": "memory"}
    made = build_table(grid(tmp_path, task_runs()), title="", paper=Paper.parse(node))
    assert "| lora | bert | sst2 | 0.600 (unverified) |" in made.to_markdown()
    assert "from memory, unverified" in made.to_markdown()


def test_a_row_may_refuse_and_null_takes_that_back(tmp_path):
    node = {**TASKS, "published": [{**TASKS["published"][0], "refuse": "quoted"}]}
    made = build_table(grid(tmp_path, task_runs()), title="", paper=Paper.parse(node))
    assert "| refused |  |  | quoted |" in made.to_markdown()
    node["published"][0]["rows"][0] = {**TASKS["published"][0]["rows"][0], "refuse": None}
    made = build_table(grid(tmp_path, task_runs()), title="", paper=Paper.parse(node))
    assert "refused |" not in made.to_markdown().replace("why refused |", "")


def block(**change):
    return {"published": [{"model": "bert", "adapter.rank": 2, "init_scheme": "kaiming", "value": 0.5, **change}]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": ""}, "has no `source`; say where"),
        ({"status": None}, "must be one of pdf, secondary, logs, figure, memory"),
        (block(status="sure"), r"`status` \(='sure'\)"),
        (block(source=None), "has no `source`"),
        ({"published": [{"init_scheme": "kaiming", "model": "bert", "value": 0.5}]}, "lacks adapter.rank"),
        ({"published": [{"model": "bert", "adapter.rank": 2, "value": 0.5}]}, "lacks init_scheme"),
        (block(spraed=0.1), "spraed"),
        (block(value=87.5), r"above `paper.scale` \(=1\); percents need scale: 100"),
        (block(value="87.5+-1"), "must be a number, or a text such as"),
        (block(parameters="many"), "must be a count"),
        ({"published": block()["published"] * 2}, "every place may come once"),
        (
            {"published": [{"model": "bert", "adapter.rank": [2, 4], "init_scheme": "kaiming", "values": [0.5]}]},
            "1 `values` for 2",
        ),
        ({"titel": "x"}, "titel"),
        ({"protocol": {"selction": "best"}}, "selction"),
        (
            {"protocol": {"selection": "luck"}},
            r"`paper.protocol.selection` \(='luck'\) must be one of best, last, cross_split",
        ),
        ({"rules": [{"when": {"task": "sst2"}}]}, "does nothing"),
        (
            {"columns": ["task"], "published": [{"init_scheme": "kaiming", "task": "sst2", "value": 1}]},
            "model",
        ),
    ],
)
def test_incomplete_papers_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Paper.parse({**NODE, **change})


def test_a_published_average_that_is_not_that_of_its_numbers_is_refused():
    wrong = {"model": "bert", "task": "average", "adapter": "lora", "value": 66}
    with pytest.raises(ValueError, match="is not that of its numbers"):
        Paper.parse({**TASKS, "published": [*TASKS["published"], wrong]})
    Paper.parse({**TASKS, "published": [*TASKS["published"], {**wrong, "value": 65.1}]})


def test_a_paper_needs_its_axes():
    with pytest.raises(ValueError, match="columns"):
        Paper.parse({"title": "t", "rows": []})
