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
                said = labels + np.exp(-effect) * easy if regression else np.where(right > 0, labels, 1 - labels)
                cell = f"{task}-{adapter}-{seed}"
                rows.append(row(cell, task, adapter, seed, score(HEADLINES.get(task, "accuracy"), said, labels)))
                if predictions:
                    write(folder, cell, labels, said)
    return pd.DataFrame(rows)


def score(metric, said, labels):
    if metric == "matthews":
        return matthews_corrcoef(labels, said)
    return np.corrcoef(said, labels)[0, 1] if metric == "pearson" else (said == labels).mean()


def row(cell, task, adapter, seed, value):
    known = {"run_id": cell, "status": "completed", "reason": None, "seed": seed, "score": value, "best/epoch": 2}
    return known | {"headline": HEADLINES.get(task, "accuracy"), "adapter": adapter, "task": task, "model": "minilm"}


def write(folder, cell, labels, said):
    place = folder / "runs" / cell
    place.mkdir(parents=True, exist_ok=True)
    columns = {"split": "validation", "idx": np.arange(len(labels)), "label": labels}
    epochs = [
        pd.DataFrame({"epoch": epoch, "prediction": said[::step], **columns}) for epoch, step in ((1, -1), (2, 1))
    ]
    other = pd.DataFrame({"epoch": 2, "split": "other", "idx": [0], "label": labels[:1], "prediction": said[:1]})
    pd.concat([*epochs, other]).sample(frac=1, random_state=0).sort_values("split", ascending=False).to_parquet(
        place / "predictions.parquet", index=False
    )


def lose(frame, cell, status="collapsed"):
    """Return `frame` with one run that did not end well."""
    hit = frame["run_id"] == cell
    return frame.assign(status=frame["status"].mask(hit, status), score=frame["score"].mask(hit))
