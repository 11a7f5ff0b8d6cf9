"""A sweep that was never run: scores with known effects, and the predictions that give them."""

import numpy as np
import pandas as pd
from sklearn.metrics import matthews_corrcoef

HEADLINES = {"sst2": "accuracy", "cola": "matthews", "stsb": "pearson"}


def sweep(folder, effects, *, tasks=("sst2",), seeds=6, examples=200, seed_sd=0.05, predictions=True):
    """Return a tidy frame of `effects` (adapter -> effect) and write `runs/<run>/predictions.parquet`."""
    rng, rows = np.random.default_rng(0), []
    for task in tasks:
        regression = HEADLINES.get(task) == "pearson"
        labels = rng.uniform(0, 5, examples) if regression else rng.integers(0, 2, examples)
        easy = rng.normal(1, 1.2, examples)
        for adapter, effect in effects.items():
            for seed in range(seeds):
                right = easy + effect + seed_sd * rng.normal() + 0.3 * rng.normal(size=examples)
                predicted = labels + np.exp(-effect) * easy if regression else np.where(right > 0, labels, 1 - labels)
                run_id = f"{task}-{adapter}-{seed}"
                rows.append(row(run_id, task, adapter, seed, score(HEADLINES.get(task, "accuracy"), predicted, labels)))
                if predictions:
                    write(folder, run_id, labels, predicted)
    return pd.DataFrame(rows)


def score(metric, predicted, labels):
    if metric == "matthews":
        return matthews_corrcoef(labels, predicted)
    return np.corrcoef(predicted, labels)[0, 1] if metric == "pearson" else (predicted == labels).mean()


def row(run_id, task, adapter, seed, value):
    known = {"run_id": run_id, "status": "completed", "reason": None, "seed": seed, "score": value, "best/epoch": 2}
    return known | {"headline": HEADLINES.get(task, "accuracy"), "adapter": adapter, "task": task, "model": "minilm"}


def write(folder, run_id, labels, predicted):
    place = folder / "runs" / run_id
    place.mkdir(parents=True, exist_ok=True)
    columns = {"split": "validation", "idx": np.arange(len(labels)), "label": labels}
    epochs = [
        pd.DataFrame({"epoch": epoch, "prediction": predicted[::step], **columns}) for epoch, step in ((1, -1), (2, 1))
    ]
    other = pd.DataFrame({"epoch": 2, "split": "other", "idx": [0], "label": labels[:1], "prediction": predicted[:1]})
    pd.concat([*epochs, other]).sample(frac=1, random_state=0).sort_values("split", ascending=False).to_parquet(
        place / "predictions.parquet", index=False
    )


def lose(frame, run_id, status="collapsed"):
    """Return `frame` with one run that did not end well."""
    hit = frame["run_id"] == run_id
    return frame.assign(status=frame["status"].mask(hit, status), score=frame["score"].mask(hit))
