"""Records for tests, without training."""

from typing import Any

import pandas as pd

from xlora_bench.results.frame.collect import collect
from xlora_bench.runs.record import Record


def record(cell: str, *, score: float = 0.5, status: str = "completed", **known: Any) -> Record:
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
    return Record(run_id=cell, status=status, **(defaults | known))


def grid(folder: Any, cells: list[dict[str, Any]]) -> pd.DataFrame:
    """Write a record per dict of choices, `rank`, `alpha`, `lr`, `seed`, `score`, `status`; collect them."""
    for number, cell in enumerate(cells):
        defaults = {"adapter": "lora", "init_scheme": "kaiming", "model": "minilm", "task": "sst2"}
        choices = {name: cell.get(name, choice) for name, choice in defaults.items()}
        rank = cell.get("rank", 8)
        config = {
            "seed": cell.get("seed", 0),
            "adapter": {"rank": rank, "alpha": cell.get("alpha", 2 * rank)},
            "optimizer": {"lr": cell.get("lr", 1e-3)},
        }
        record(
            f"{number:016x}",
            score=cell.get("score", 0.5),
            status=cell.get("status", "completed"),
            reason=cell.get("reason"),
            config=config,
            choices=choices,
            seed=config["seed"],
            parameters={"adapter": 100 * rank, "trainable": 100 * rank + 50},
            started=f"2026-01-01T00:{number // 60:02d}:{number % 60:02d}+00:00",
        ).write(folder / "runs" / f"{number:016x}" / "record.json")
    return collect(folder)
