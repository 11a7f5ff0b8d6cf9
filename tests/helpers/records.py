"""Records for tests, without training."""

from typing import Any

import pandas as pd

from xlora_bench.results.frame.collect import collect
from xlora_bench.runs.record import Record


def record(run_id: str, *, score: float = 0.5, status: str = "completed", **known: Any) -> Record:
    best = {"epoch": 1, "accuracy": score, "loss": 1 - score}
    last = {**best, "epoch": 2, "accuracy": score - 0.01}
    metrics = {"headline": "accuracy", "history": [best, last], "best": best, "last": last}
    defaults = {
        "config": {},
        "choices": {},
        "seed": 0,
        "metrics": metrics,
        "parameters": {"adapter": 100, "trainable": 150},
        "cost": {"train_seconds": 2.0},
        "started": "2026-01-01T00:00:00+00:00",
        "finished": "2026-01-01T00:01:00+00:00",
    }
    return Record(run_id=run_id, status=status, **(defaults | known))


def grid(folder: Any, runs: list[dict[str, Any]]) -> pd.DataFrame:
    """Write a record per dict: `rank`, `alpha`, `lr`, `base` (of the model), `seed`, `score`, `status`; collect."""
    for number, run in enumerate(runs):
        defaults = {"adapter": "lora", "init_scheme": "kaiming", "model": "minilm", "task": "sst2"}
        choices = {name: run.get(name, choice) for name, choice in defaults.items()}
        rank = run.get("rank", 8)
        config = {
            "seed": run.get("seed", 0),
            "adapter": {"rank": rank, "alpha": run.get("alpha", 2 * rank)},
            "optimizer": {"lr": run.get("lr", 1e-3)},
            **({"model": run["base"]} if "base" in run else {}),
        }
        record(
            f"{number:016x}",
            score=run.get("score", 0.5),
            status=run.get("status", "completed"),
            reason=run.get("reason"),
            config=config,
            choices=choices,
            seed=config["seed"],
            parameters={"adapter": 100 * rank, "trainable": 100 * rank + 50},
            started=f"2026-01-01T00:{number // 60:02d}:{number % 60:02d}+00:00",
        ).write(folder / "runs" / f"{number:016x}" / "record.json")
    return collect(folder)
