"""One training run, every protocol: scores under best, last and half from stored predictions."""

import numpy as np
import pandas as pd
import pytest

from tests.helpers.records import record
from xlora_bench.cli.table import main
from xlora_bench.results.frame import predictions_file
from xlora_bench.results.frame.collect import collect
from xlora_bench.results.protocols.selection import cross_split_score, halves, scores_under, under, with_selections

pytestmark = pytest.mark.slow


def predictions(right, *, idx=None):
    """Predictions of a binary task: `right[epoch][row]` says whether the prediction is right."""
    parts = []
    for epoch, hits in enumerate(np.asarray(right, dtype=bool), start=1):
        labels = np.arange(len(hits)) % 2
        predicted = np.where(hits, labels, 1 - labels)
        rows = {"epoch": epoch, "split": "validation", "idx": np.arange(len(hits)) if idx is None else idx}
        logits = {"logit_0": 1.0 - 2 * predicted, "logit_1": 2.0 * predicted - 1}
        parts.append(pd.DataFrame({**rows, "label": labels, "prediction": predicted, **logits}))
    return pd.concat(parts, ignore_index=True)


def write_run(folder, name, frame, *, headline="accuracy", **known):
    """Write a record with the metrics that training would have stored, and its predictions."""
    epochs = [rows for _, rows in frame.groupby("epoch")]
    history = [
        {"epoch": number, headline: float((rows.prediction == rows.label).mean())}
        for number, rows in enumerate(epochs, start=1)
    ]
    best = max(history, key=lambda entry: (entry[headline], -entry["epoch"]))
    metrics = {"headline": headline, "history": history, "best": best, "last": history[-1]}
    record(name, metrics=metrics, choices={"adapter": "lora", "task": "sst2"}, **known).write(
        folder / "runs" / name / "record.json"
    )
    frame.to_parquet(folder / "runs" / name / "predictions.parquet", index=False)


def random_run(folder, name, *, seed, rows=41, epochs=5):
    right = np.random.default_rng(seed).random((epochs, rows)) < 0.6
    write_run(folder, name, predictions(right), seed=seed)
    return right


def test_the_halves_are_fixed_disjoint_and_a_matter_of_idx_alone():
    idx = np.arange(100, 141)
    first = halves(idx)
    assert len(first) == 21
    assert set(first) < set(idx)
    assert np.array_equal(first, halves(idx[::-1]))
    assert np.array_equal(first, halves(idx))


def test_half_is_best_on_one_half_scored_on_the_other_both_ways():
    right = np.random.default_rng(0).random((4, 20)) < 0.5
    inside = np.isin(np.arange(20), halves(np.arange(20)))
    accuracy = [right[:, inside].mean(axis=1), right[:, ~inside].mean(axis=1)]
    expected = (accuracy[1][accuracy[0].argmax()] + accuracy[0][accuracy[1].argmax()]) / 2
    frame = predictions(right)

    for rows in (frame, frame.sample(frac=1, random_state=0)):
        hits = (rows.prediction == rows.label).to_numpy()
        epochs, idx = rows.epoch.to_numpy(), rows.idx.to_numpy()
        assert cross_split_score(epochs, idx, lambda mask, hits=hits: hits[mask].mean()) == pytest.approx(expected)


def test_best_and_last_from_predictions_are_those_of_the_record(tmp_path):
    for seed in range(3):
        random_run(tmp_path, f"{seed:016x}", seed=seed)
    frame = collect(tmp_path)
    for selection, column in (("best", "score_best"), ("last", "score_last")):
        assert scores_under(frame, tmp_path, selection).tolist() == pytest.approx(frame[column].tolist())


def test_the_optimism_of_the_best_epoch_is_positive_where_all_epochs_are_equally_good(tmp_path):
    for seed in range(20):
        random_run(tmp_path, f"{seed:016x}", seed=seed)
    frame = with_selections(collect(tmp_path), tmp_path)
    gap = frame["score_best"] - frame["score_cross_split"]
    assert gap.mean() > 3 * gap.std() / 20**0.5
    assert frame["score_cross_split"].mean() == pytest.approx(0.6, abs=0.03)  # the truth, which `best` overstates
    assert frame["score_best"].mean() > 0.65


@pytest.mark.parametrize("metric", ["matthews", "pearson", "f1"])
def test_other_metrics_are_those_of_training(metric, tmp_path):
    from scipy.stats import pearsonr
    from sklearn.metrics import f1_score, matthews_corrcoef

    rng = np.random.default_rng(1)
    frame = predictions(rng.random((3, 60)) < 0.7)
    if metric == "pearson":
        frame = frame.drop(columns=["logit_1"]).assign(label=rng.random(len(frame)), logit_0=rng.random(len(frame)))
        frame["prediction"] = frame["logit_0"]
    write_run(tmp_path, "a", frame.assign(prediction=frame["prediction"]), headline=metric)
    (found,) = scores_under(collect(tmp_path), tmp_path, "last")
    last = frame[frame["epoch"] == 3]
    expected = {
        "matthews": lambda: matthews_corrcoef(last.label, last.prediction),
        "f1": lambda: f1_score(last.label, last.prediction),
        "pearson": lambda: pearsonr(last.label, last.prediction).statistic,
    }[metric]()
    assert found == pytest.approx(expected)


@pytest.mark.parametrize("metric", ["accuracy", "matthews", "pearson"])
def test_scores_have_the_bits_of_the_plain_way(metric, tmp_path):
    """The plain way: one frame per half and epoch, each scored by scikit-learn or scipy."""
    from scipy.stats import pearsonr
    from sklearn.metrics import accuracy_score, matthews_corrcoef

    def plain(rows):
        if metric == "pearson":
            return float(pearsonr(rows.logit_0, rows.label).statistic)
        by = accuracy_score if metric == "accuracy" else matthews_corrcoef
        return float(by(rows.label, rows[["logit_0", "logit_1"]].to_numpy().argmax(1)))

    for seed in range(5):
        rng = np.random.default_rng(seed)
        frame = predictions(rng.random((4, 61)) < 0.7)
        if metric == "pearson":
            frame = frame.drop(columns=["logit_1"]).assign(label=rng.random(len(frame)), logit_0=rng.random(len(frame)))
        write_run(tmp_path, f"{seed}", frame, headline=metric, seed=seed)
        inside = frame["idx"].isin(halves(frame["idx"].unique()))
        first, second = (
            {e: plain(rows) for e, rows in part.groupby("epoch")} for part in (frame[inside], frame[~inside])
        )
        expected = (second[max(first, key=first.get)] + first[max(second, key=second.get)]) / 2
        assert scores_under(collect(tmp_path), tmp_path, "cross_split").iloc[seed] == expected


def test_only_the_first_split_counts(tmp_path):
    frame = predictions(np.ones((2, 10)))
    other = predictions(np.zeros((2, 10))).assign(split="validation_mismatched")
    write_run(tmp_path, "a", frame)
    pd.concat([frame, other]).to_parquet(tmp_path / "runs" / "a" / "predictions.parquet", index=False)
    assert scores_under(collect(tmp_path), tmp_path, "cross_split").tolist() == [1.0]


@pytest.mark.parametrize(("first", "rows"), [("validation", 2), (None, 0)])
def test_rows_without_a_split_do_not_count(first, rows, tmp_path):
    path = tmp_path / "predictions.parquet"
    predictions(np.ones((1, 4))).assign(split=[first, first, None, None]).to_parquet(path, index=False)
    if rows:
        assert len(predictions_file.read_main_split(path)["idx"]) == rows
    else:
        with pytest.raises(ValueError, match="its first row has no split"):
            predictions_file.read_main_split(path)


def test_missing_or_broken_predictions_are_named_and_the_rest_goes_on(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("xlora_bench.results.reports.report.write_figures", lambda *_, **__: None)
    for seed, name in enumerate(("whole", "without", "broken")):
        random_run(tmp_path, name, seed=seed)
    (tmp_path / "runs" / "without" / "predictions.parquet").unlink()
    (tmp_path / "runs" / "broken" / "predictions.parquet").write_bytes(b"PAR1")
    frame = with_selections(collect(tmp_path), tmp_path)
    assert list(frame.attrs["without_predictions"]) == ["broken", "without"]
    assert main([str(tmp_path), "--selection", "cross_split"]) == 0
    text = (tmp_path / "reports" / "cross_split" / "table.md").read_text()
    assert "(1) |" in text
    assert "without: its predictions.parquet is not there; rerun=true trains it again" in text
    assert "Without a score by halves: broken: its predictions.parquet cannot be read" in text
    (tmp_path / "runs" / "whole" / "predictions.parquet").unlink()
    assert main([str(tmp_path), "--selection", "cross_split"]) == 1
    error = capsys.readouterr().err
    assert "`selection` (=cross_split) needs the stored predictions, which none of the 3 completed runs has" in error
    assert main([str(tmp_path), "--selection", "last"]) == 0


def test_three_protocols_from_one_set_of_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "xlora_bench.results.reports.report.write_figures", lambda *_, **__: None
    )  # slow, and not asked about
    for seed in range(3):
        random_run(tmp_path, f"{seed:016x}", seed=seed)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/*")}
    texts = {}
    for selection in ("best", "last", "cross_split"):
        assert main([str(tmp_path), "--selection", selection, "--aggregation", "median"]) == 0
        texts[selection] = (tmp_path / "reports" / f"{selection}_median" / "table.md").read_text()
        runs = pd.read_csv(tmp_path / "reports" / f"{selection}_median" / "runs.csv")
        assert runs["score"].tolist() == pytest.approx(runs[f"score_{selection}"].tolist())
        frame = under(with_selections(collect(tmp_path), tmp_path), selection)
        assert f"| lora | {np.median(frame['score']):.4f} ± " in texts[selection]
        gap = (frame["score_best"] - frame["score_cross_split"]).mean()
        title = "Optimism of the best epoch (best minus cross_split, mean over runs)"
        assert f"{title}: lora {gap:+.4f} (3)." in texts[selection]
    assert len(set(texts.values())) == 3
    assert "Score at the last epoch: median ± half the distance" in texts["last"]
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/*")} == before


def test_reasons_of_many_runs_are_not_copied_with_each_frame(tmp_path):
    random_run(tmp_path, "a", seed=0)
    (tmp_path / "runs" / "a" / "predictions.parquet").unlink()
    frame = with_selections(collect(tmp_path), tmp_path)
    derived = frame[frame["status"] == "completed"].copy()
    assert list(derived.attrs["without_predictions"]) == ["a"]
    for name in ("without_predictions", "unreadable"):
        assert derived.attrs[name] is frame.attrs[name]


def test_a_report_reads_each_file_of_predictions_once(tmp_path, monkeypatch):
    for seed in range(3):
        random_run(tmp_path, f"{seed:016x}", seed=seed)
    opened, read = [], predictions_file._main_split
    monkeypatch.setattr(
        predictions_file, "_main_split", lambda path, **k: opened.append(path.parent.name) or read(path, **k)
    )
    path = tmp_path / "runs" / f"{0:016x}" / "predictions.parquet"
    left = predictions_file._KEPT.left
    with_selections(collect(tmp_path), tmp_path)
    assert opened == [f"{seed:016x}" for seed in range(3)]
    assert predictions_file._KEPT.left < left
    first = predictions_file.read_main_split(path, predictions_file.COLUMNS)
    assert len(opened) == 3
    again = predictions_file.read_main_split(path, predictions_file.COLUMNS)
    assert len(opened) == 4  # kept for one reading
    assert all(np.array_equal(first[name], again[name]) for name in ("idx", "label", "prediction", "epoch"))
    predictions(np.zeros((1, 9))).to_parquet(path, index=False)
    assert len(predictions_file.read_main_split(path)["idx"]) == 9
