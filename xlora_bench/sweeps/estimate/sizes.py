"""Sizes of tasks and models: read from files on this machine if possible, else from `sizes.yaml`."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from hydra.utils import instantiate
from omegaconf import OmegaConf

from xlora_bench.data import synthetic
from xlora_bench.data.sources import fingerprint, read_task
from xlora_bench.data.task import TextTask
from xlora_bench.models.pretrained import Pretrained
from xlora_bench.system.lru_cache import LRUCache

log = logging.getLogger(__name__)

SAMPLE = 1000
"""Number of training rows that are tokenised to estimate the mean length."""

KEYS = (("num_hidden_layers", "n_layers"), ("hidden_size", "dim"), ("intermediate_size", "hidden_dim"))


@cache
def published() -> dict[str, dict[str, Any]]:
    """Return the tables of `sizes.yaml`: `glue` by task, `encoders` by model."""
    return OmegaConf.to_container(OmegaConf.load(Path(__file__).with_name("sizes.yaml")))  # type: ignore[return-value]


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """Shape of an encoder: `layers` blocks of attention (width `d`) and a feed-forward part (`d -> inner -> d`)."""

    layers: int
    width: int
    inner: int

    def flops_per_token(self, length: float) -> float:
        """Return `layers (2 (4 d^2 + 2 d f) + 4 n d)`: forward pass, `d = width`, `f = inner`, `n = length` tokens."""
        linear = 2 * (4 * self.width**2 + 2 * self.width * self.inner)
        return self.layers * (linear + 4 * length * self.width)


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Number of rows trained on and evaluated per epoch, mean tokens per row, and the source of these numbers."""

    train: int
    evaluated: int
    tokens: float
    source: str
    fingerprint: str | None = None


def encoder_of(model: Mapping[str, Any]) -> Encoder | None:
    """Return the shape of a config's model from its `config.json`, else from `sizes.yaml`, else None."""
    name = str(model.get("name"))
    try:
        shape = json.loads((Path(Pretrained(name=name).location()) / "config.json").read_text(encoding="utf-8"))
        layers, width, inner = (next(int(shape[key]) for key in keys if key in shape) for keys in KEYS)
    except (OSError, ValueError, StopIteration):
        table = published()["encoders"]
        return Encoder(**table[name]) if name in table else None
    return Encoder(layers=layers, width=width, inner=inner)


def rows_of(config: Mapping[str, Any]) -> Rows | None:
    """Return the rows of a config's task from its data, else from the published GLUE sizes, else None."""
    folder = config["paths"]["data_dir"]
    key = json.dumps([config["task"], folder], sort_keys=True, default=str)
    return KNOWN_ROWS.get(key, lambda: rows_of_task(instantiate(config["task"]), folder))


def rows_of_task(task: TextTask, folder: str | None) -> Rows | None:
    """Return the rows of a task from the data in `folder`, else from the published GLUE sizes, else None."""
    if task.name in synthetic.GRAMMARS or folder is not None:
        try:
            return read_rows(task, Path(folder).expanduser() if folder is not None else None)
        except (ValueError, OSError) as error:
            log.warning("%s", error)
    return _published_rows(task)


KNOWN_ROWS: LRUCache[Rows | None] = LRUCache(64)
"""Rows by task and folder: the runs of a sweep share them."""


def read_rows(task: TextTask, folder: Path | None) -> Rows:
    """Return the rows of a task from its data; raise as `read_task`."""
    rows = read_task(task, data_dir=folder)
    train = rows[task.training_split]
    indices = np.linspace(0, len(train) - 1, min(SAMPLE, len(train))).astype(int)
    texts = [[column[index] for index in indices] for column in train.texts]
    encoded = Pretrained(name="embedded/minilm").tokenizer()(*texts, truncation=True, max_length=task.max_length)
    return Rows(
        train=len(train),
        evaluated=sum(len(part) for split, part in rows.items() if split != task.train_split),
        tokens=float(np.mean([len(ids) for ids in encoded["input_ids"]])),
        source="the data",
        fingerprint=fingerprint(rows),
    )


def _published_rows(task: TextTask) -> Rows | None:
    """Return the published sizes of a GLUE task, cut to the limits of `task`; None for any other task."""
    entry = published()["glue"].get(task.name)
    if entry is None:
        return None
    sizes = entry["rows"]
    rest = sizes["train"] - (task.holdout or 0)
    train = min(rest, task.max_train_rows or rest)
    whole = [min(sizes.get(split, 0), task.max_eval_rows or sizes.get(split, 0)) for split in task.eval_splits]
    return Rows(
        train=train,
        evaluated=task.holdout or sum(whole),
        tokens=min(entry["tokens"], float(task.max_length)),
        source="published sizes",
    )
