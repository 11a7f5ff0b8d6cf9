"""Rows of a task: read from one explicit source, checked, reduced to a subset, and hashed."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from xlora_bench.data import files, hub, synthetic
from xlora_bench.data.checks import checked_labels, checked_text
from xlora_bench.data.task import HOLDOUT, TextTask
from xlora_bench.runs import seeds


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Rows of one split: `texts` (1 or 2 lists of length n), `labels` (n,) int64 or float32, `idx` (n,).

    `idx` is the index of the row in the whole split, so it does not depend on the row limit.
    """

    texts: tuple[list[str], ...]
    labels: np.ndarray
    idx: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of texts, labels and `idx`. Does not depend on path, file format and time stamps."""
        digest = hashlib.sha256()
        for column in self.texts:
            encoded = [text.encode() for text in column]
            digest.update(np.array([len(text) for text in encoded], dtype="<i8").tobytes())
            digest.update(b"".join(encoded))
        digest.update(self.labels.astype(self.labels.dtype.newbyteorder("<")).tobytes())
        digest.update(self.idx.astype("<i8").tobytes())
        return digest.hexdigest()


def read_task(task: TextTask, *, data_dir: Path | None) -> dict[str, Rows]:
    """Return the rows of every split of `task`, the training split first.

    Raises:
        ValueError: if the source cannot be read, or its rows do not fit the task.
    """
    return {split: read_rows(task, split, data_dir=data_dir) for split in task.splits}


def read_rows(task: TextTask, split: str, *, data_dir: Path | None, may_lack_labels: bool = False) -> Rows:
    """Return the checked rows of one split: generated, from `data_dir`, or (`data_dir=None`) from the Hub."""
    source = task.training_split if split == HOLDOUT else split
    frame, source_name = _read_frame(task, source, data_dir=data_dir)
    texts = checked_text(frame, task.text_columns, location=source_name)
    labels = checked_labels(frame, task.labels, location=source_name, may_be_absent=may_lack_labels)
    if split == HOLDOUT:
        keep = _held_out(task, len(labels))
    elif split == task.train_split and task.holdout is not None:
        keep = _trained_on(task, len(labels))
    else:
        keep = _subset(len(labels), task.max_rows[split], split=split)
    return Rows(texts=tuple([column[i] for i in keep] for column in texts), labels=labels[keep], idx=keep)


def fingerprint(rows: Mapping[str, Rows]) -> str:
    """Return one content hash for the rows of all splits."""
    digest = hashlib.sha256()
    for split, part in rows.items():
        digest.update(f"{split}={part.fingerprint};".encode())
    return digest.hexdigest()


def _read_frame(task: TextTask, split: str, *, data_dir: Path | None) -> tuple[pd.DataFrame, str]:
    """Return the raw rows, and a name of their source for error messages."""
    if task.name in synthetic.GRAMMARS:
        return synthetic.read(task.name, split), f"generated {task.name}/{split}"
    if data_dir is not None:
        path = files.find(Path(data_dir).expanduser() / task.name, split)
        return files.read(path), str(path)
    if task.hub is None:
        raise ValueError(f"task {task.name!r} has no `task.hub`: set `paths.data_dir=DIR` to read your own files")
    return hub.read(task.hub, split), f"{'/'.join(task.hub)} ({split}) on the Hub"


def _subset(rows: int, limit: int | None, *, split: str) -> np.ndarray:
    """Return the indices of the rows that are used, in file order.

    They do not depend on the run's seed, so all seeds and all variants use the same rows.
    """
    if limit is None or limit >= rows:
        return np.arange(rows)
    return np.sort(_order(rows, split)[:limit])


def _order(rows: int, split: str) -> np.ndarray:
    return torch.randperm(rows, generator=seeds.generator(0, "subset", split)).numpy()


def _held_out(task: TextTask, rows: int) -> np.ndarray:
    """Return the indices of the held-out rows: the last ones in `_order`. Training rows are the first ones."""
    count = task.holdout or 0
    if count >= rows:
        raise ValueError(f"`task.holdout` (={count}) must leave some of the {rows} training rows of task {task.name!r}")
    return np.sort(_order(rows, task.training_split)[rows - count :])


def _trained_on(task: TextTask, rows: int) -> np.ndarray:
    """Return the indices of the training rows if some rows are held out."""
    rest = rows - len(_held_out(task, rows))
    limit = rest if task.max_train_rows is None else min(task.max_train_rows, rest)
    return np.sort(_order(rows, task.training_split)[:limit])
