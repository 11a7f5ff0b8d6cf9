"""The page's content, read back from the file; `tests/browser` opens it."""

import json
import re
from html import unescape
from html.parser import HTMLParser

import numpy as np
import pytest

from tests.helpers.records import grid, record
from xlora_bench.cli.report import main
from xlora_bench.results.frame.collect import collect
from xlora_bench.results.page.answers import duration
from xlora_bench.results.page.charts import looks
from xlora_bench.results.page.runs import plain, thinned
from xlora_bench.results.reports.report import report_page
from xlora_bench.results.reproduce.records_archive import recorded_in, write_archive

pytestmark = pytest.mark.slow


class Reader(HTMLParser):
    """The visible text of a page, and every address in it."""

    def __init__(self):
        super().__init__()
        self.text, self.addresses, self.inside = [], [], ""

    def handle_starttag(self, tag, attributes):
        self.inside = tag
        self.addresses += [value for name, value in attributes if name in ("src", "href", "action", "srcset")]

    def handle_data(self, text):
        if self.inside not in ("script", "style"):
            self.text.append(text)


def read(path):
    reader = Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    return reader, " ".join(" ".join(reader.text).split())


def data_of(path):
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', path.read_text(), re.S)
    return json.loads(text)


def runs_of(scores, **more):
    return [{**more, "seed": seed, "score": score} for seed, score in enumerate(scores)]


def known(folder):
    """svd_left beats kaiming at rank 8 by .1 in all of six seeds; at rank 2 they are equal; one run failed."""
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.005, 6)
    some = [
        *runs_of(0.7 + noise, rank=8, init_scheme="kaiming"),
        *runs_of(0.8 + noise[::-1], rank=8, init_scheme="svd_left"),
        *runs_of(0.7 + noise, rank=2, init_scheme="kaiming"),
        *runs_of(0.7 + noise[::-1], rank=2, init_scheme="svd_left"),
        {"rank": 2, "init_scheme": "qr", "status": "failed", "reason": "ValueError: out of memory"},
        {"rank": 8, "init_scheme": "qr", "status": "collapsed", "score": 0.5, "reason": "loss is not finite"},
    ]
    return grid(folder, some)


def test_the_page_answers(tmp_path):
    path = report_page(known(tmp_path), tmp_path / "report.html", title="t", results_dir=tmp_path)
    text = read(path)[1]
    assert "Which of 3 methods has the highest score" in text
    assert "svd_left is significantly better than every other method on rank 8" in text
    assert "no method is significantly better than all others with 6 seeds on rank 2" in text
    assert "26 runs (24 completed, 1 collapsed, 1 failed); 52 s of initialisation, training and evaluation" in text
    assert re.search(r"failed , 1 run: ValueError: out of memory 0+18 ", text)
    data = data_of(path)
    third = data["runs"]["columns"]["seed"].index(2)
    assert data["runs"]["common"]["optimizer.lr"] == 1e-3
    assert "optimizer.lr" not in data["runs"]["columns"]
    assert data["curves"]["accuracy"][third] == [[1, 2], [plain(each) for each in history(tmp_path, third)]]


def history(folder, run):
    content = json.loads((folder / "runs" / f"{run:016x}" / "record.json").read_text())
    return [entry["accuracy"] for entry in content["metrics"]["history"]]


def test_entries_agree_with_table_and_comparison(tmp_path):
    frame = known(tmp_path)
    entries = data_of(report_page(frame, tmp_path / "r.html", title="t", results_dir=tmp_path))["entries"]
    (best,) = (entry for entry in entries if entry["rank"] == 8 and "svd_left" in entry["keys"])
    chosen = frame[(frame["init_scheme"] == "svd_left") & (frame["adapter.rank"] == 8)]
    assert best["n"] == 6
    assert best["score"] == pytest.approx(chosen["score"].mean(), rel=1e-5)
    assert best["spread"] == pytest.approx(chosen["score"].std(ddof=1), rel=1e-5)
    assert best["difference"] == pytest.approx(0.1, rel=1e-5)
    assert best["difference_low"] < 0.1 < best["difference_high"]
    assert best["significant"]
    assert best["parameters"] == 850
    assert sorted(best["runs"]) == sorted(chosen.index)
    (failed,) = (entry for entry in entries if entry["failed"])
    assert failed["n"] == 0
    assert failed["score"] is None
    assert failed["parameters"] is None
    assert failed["front"] == []


def test_no_address_leaves_the_file(tmp_path):
    path = report_page(known(tmp_path), tmp_path / "report.html", title="t", results_dir=tmp_path)
    addresses = read(path)[0].addresses
    assert addresses
    assert all(address.startswith(("#", "data:")) for address in addresses)
    assert "default-src 'none'" in path.read_text()


@pytest.mark.parametrize(
    "name", ["<script>alert(1)</script>", "a|b", "a\\b", "\N{ROCKET} </script>", "<!--", "x" * 200, "\u202egnp"]
)
def test_names_are_text(tmp_path, name):
    frame = grid(tmp_path, [*runs_of((0.5, 0.6), adapter=name), *runs_of((0.5, 0.6), adapter="lora")])
    path = report_page(frame, tmp_path / "r.html", title=name, results_dir=tmp_path)
    assert name.replace("\u202e", r"\u202e") in data_of(path)["methods"]
    content = path.read_text()
    assert "<script>alert" not in content
    assert len(re.findall("<script", content)) == len(re.findall("</script", content)) + content.count("\\x3cscript")
    shown = unescape(read(path)[1])
    assert "\u202e" not in shown


def test_an_empty_folder_says_so(tmp_path, capsys):
    (tmp_path / "runs").mkdir()
    assert main([str(tmp_path)]) == 0
    assert "No recorded run" in read(tmp_path / "report.html")[1]
    assert "0 runs:" in capsys.readouterr().out


def test_what_is_no_results_folder_is_refused(tmp_path, capsys):
    assert main([str(tmp_path)]) == 1
    assert "is not a results folder" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_interrupted_runs_are_named(tmp_path, capsys):
    (tmp_path / "runs").mkdir()
    (tmp_path / "attempts" / "0000000000000001" / "1" / "checkpoint").mkdir(parents=True)
    assert main([str(tmp_path)]) == 0
    text = read(tmp_path / "report.html")[1]
    assert "No recorded run" in text
    assert "not on this page: 1 interrupted." in text


def test_the_page_of_an_archive(tmp_path):
    known(tmp_path / "results")
    runs = recorded_in(tmp_path / "results").values()
    archive = tmp_path / "there" / "records.jsonl.gz"
    write_archive(runs, archive)
    assert main([str(archive), "--filter", "adapter.rank=8", "adapter=lora"]) == 0
    path = archive.parent / "report.html"
    assert "13 runs (12 completed, 1 collapsed)" in read(path)[1]
    assert sum(curve is not None for curve in data_of(path)["curves"]["accuracy"]) == 13


def test_null_selects_runs_without_a_value(tmp_path, capsys):
    frame = grid(tmp_path, [{"seed": 0, "base": {"revision": "a"}}, {"seed": 1}])
    assert len(frame) == 2
    assert main([str(tmp_path), "--filter", "model.revision=null"]) == 0
    assert "1 runs:" in capsys.readouterr().out


def test_only_failed_runs(tmp_path):
    frame = grid(tmp_path, [{"status": "failed", "reason": "ValueError: no"}])
    text = read(report_page(frame, tmp_path / "r.html", title="t", results_dir=tmp_path))[1]
    assert "No run is completed, so there is no score to compare." in text
    assert "ValueError: no" in text


def test_fifty_methods_and_a_metric_that_some_runs_lack(tmp_path):
    frame = grid(tmp_path, [{"adapter": f"m{number}", "seed": seed} for number in range(50) for seed in (0, 1)])
    lacking = record(
        "f" * 16, metrics={"headline": "f1", "best": {"epoch": 1, "f1": 0.5}, "last": {"epoch": 1, "f1": 0.5}}
    )
    lacking.write(tmp_path / "runs" / lacking.run_id / "record.json")
    path = report_page(collect(tmp_path), tmp_path / "r.html", title="t", results_dir=tmp_path)
    data = data_of(path)
    assert len(frame) == 100
    assert len(data["methods"]) == 51
    assert len({str(look) for look in looks(range(126))}) == 126
    assert [curve is None for curve in data["curves"]["accuracy"]].count(True) == 1


def test_mixed_versions_are_told(tmp_path):
    frame = grid(tmp_path, [{"seed": seed} for seed in (0, 1)])
    frame["code/commit"] = ["a" * 40, "b" * 40]
    frame["code/dirty"] = False
    text = read(report_page(frame, tmp_path / "r.html", title="t", results_dir=tmp_path))[1]
    assert "Mixed" in text
    assert "a" * 40 in text


def test_three_hundred_runs_stay_under_five_megabytes(tmp_path):
    some = [
        {"adapter": f"m{number % 10}", "rank": 2 ** (number % 3), "seed": number // 30, "score": number / 300}
        for number in range(300)
    ]
    frame = grid(tmp_path, some)
    path = report_page(frame, tmp_path / "r.html", title="t", results_dir=tmp_path)
    assert path.stat().st_size < 5e6


def test_an_empty_entry_of_a_history_is_left_out(tmp_path):
    whole = record("a")
    history = [None, *whole.metrics["history"]]
    record("a", metrics={**whole.metrics, "history": history}).write(tmp_path / "runs" / "a" / "record.json")
    assert main([str(tmp_path)]) == 0
    assert data_of(tmp_path / "report.html")["curves"]["accuracy"] == [[[1, 2], [0.5, 0.49]]]


def test_long_curves_are_thinned_and_said_so(tmp_path):
    best = {"epoch": 1, "accuracy": 0.5}
    metrics = {"headline": "accuracy", "best": best, "last": best}
    metrics["history"] = [{"epoch": epoch, "accuracy": epoch / 1000} for epoch in range(1000)]
    record("0" * 16, metrics=metrics).write(tmp_path / "runs" / ("0" * 16) / "record.json")
    data = data_of(report_page(collect(tmp_path), tmp_path / "r.html", title="t", results_dir=tmp_path))
    ((epochs, values),) = data["curves"]["accuracy"]
    assert (len(epochs), epochs[0], epochs[-1]) == (100, 0, 999)
    assert values == [plain(epoch / 1000) for epoch in epochs]
    assert any("100 evaluations" in note for note in data["notes"])


def test_plain_values():
    assert plain(0.123456789) == 0.123457
    assert plain(float("nan")) is None
    assert plain(float("inf")) == "inf"
    assert plain({"a": (1, np.float32(0.5))}) == {"a": [1, 0.5]}
    assert thinned(range(5), 3) == [0, 2, 4]
    assert [duration(3.14159), duration(61), duration(7322)] == ["3.14 s", "1 min 1 s", "2 h 2 min"]
