"""Definition of a task: columns, labels, metrics, splits and batch sizes of one data set."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from annotated_types import MinLen

from xlora_bench.system.options import CheckedOptions, Count, NaturalNumber, OptionsError, fault

if TYPE_CHECKING:
    import numpy as np

Layout = Literal["auto", "packed", "padded"]
HOLDOUT = "holdout"
"""Name of the split that `TextTask.holdout` takes from the training split."""
NOT_TRAINED = "train on another task, then score its adapter with `xlora-bench evaluate RUN task=...`"
ROW_LENGTHS = (*range(32, 129, 8), 144, 160, 176, 192)
"""Steps of 8 leave 5 to 10 % padding at batch sizes 16 to 32. Short rows: cheap attention. Long rows: less padding."""
CLASSIFICATION_METRICS = ("accuracy", "f1", "matthews")
REGRESSION_METRICS = ("pearson", "spearman")
RANGES: Mapping[str, tuple[float, float]] = {
    **dict.fromkeys(("accuracy", "f1"), (0.0, 1.0)),
    **dict.fromkeys(("matthews", *REGRESSION_METRICS), (-1.0, 1.0)),
}
"""The lowest and the highest value of each metric."""


@dataclass(frozen=True, kw_only=True)
class TextTask(CheckedOptions):
    """One data set with one or two text columns, scored as classification or (`labels=None`) as regression.

    `labels` are the class names in id order. `hub` holds the positional arguments of `datasets.load_dataset`
    (None: not on the Hub). A task without a `train_split` is for evaluation alone. The first of `eval_splits` is the
    main one. `headline` is the metric that selects the best epoch. `max_length` is in tokens, special tokens included;
    batch sizes are in examples. `holdout` is a number of training rows that are not trained on and are evaluated
    instead of `eval_splits`. Use it for choices, such as a learning rate, that must not depend on the reported splits.
    `row_lengths` are the allowed row lengths of packed batches in tokens; the shortest is also the row length for
    attention in unpadded batches. They affect rounding. `num_workers` processes make the batches (0: the training
    process itself); they change no number.

    Raises:
        ValueError: if a field contradicts another or is outside its range.
    """

    config_group: ClassVar[str] = "task"

    name: Annotated[str, MinLen(1)]
    text_columns: tuple[str, ...]
    labels: tuple[str, ...] | None
    metrics: tuple[str, ...]
    headline: str
    hub: tuple[str, ...] | None = None
    train_split: str | None = "train"
    eval_splits: tuple[str, ...] = ("validation",)
    max_train_rows: Count | None = None
    max_eval_rows: Count | None = None
    max_length: Count = 128
    batch_size: Count = 32
    eval_batch_size: Count = 256
    holdout: Count | None = None
    layout: Layout = "auto"
    row_lengths: Annotated[tuple[Count, ...], MinLen(1)] = ROW_LENGTHS
    num_workers: NaturalNumber = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._freeze_sequences()
        self._check_names()
        if self.holdout is not None:
            object.__setattr__(self, "eval_splits", (HOLDOUT,))
            assert self.training_split
        self._check_columns_and_splits()
        self._check_labels()
        self._check_metrics()

    def _check_names(self) -> None:
        """Raise unless the name of the task and those of its splits stay within `paths.data_dir`."""
        splits = [("eval_splits", split) for split in self.eval_splits]
        for key, name in (("name", self.name), ("train_split", self.train_split), *splits):
            if name is not None and (name in (".", "..") or set(name) & set("/\\\0")):
                rule = "must be a plain name, without / and \\: it names a file or folder within paths.data_dir"
                raise OptionsError([fault(f"task.{key}", name, f"{rule}, which may be any folder")])

    @property
    def num_labels(self) -> int:
        """Width of the model's output: the number of classes, 1 for regression."""
        return 1 if self.labels is None else len(self.labels)

    @property
    def is_regression(self) -> bool:
        """Whether the label is a score (a float) instead of a class."""
        return self.labels is None

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of all splits, the training split first if there is one."""
        return self.eval_splits if self.train_split is None else (self.train_split, *self.eval_splits)

    @property
    def training_split(self) -> str:
        """Name of the training split; raises a ValueError if there is none."""
        if self.train_split is None:
            raise self._error("train_split", None, f"names nothing to train on: {NOT_TRAINED}")
        return self.train_split

    @property
    def max_rows(self) -> dict[str, int | None]:
        """The row limit of each split; None: no limit."""
        limits: dict[str, int | None] = dict.fromkeys(self.eval_splits, self.max_eval_rows)
        return limits if self.train_split is None else {self.train_split: self.max_train_rows, **limits}

    def _freeze_sequences(self) -> None:
        """Convert the lists of a config to tuples, so that the task is hashable."""
        for field in ("text_columns", "labels", "metrics", "hub", "eval_splits", "row_lengths"):
            value = getattr(self, field)
            if value is not None:
                object.__setattr__(self, field, tuple(value))

    def _check_columns_and_splits(self) -> None:
        if len(self.text_columns) not in (1, 2):
            raise self._error("text_columns", self.text_columns, "must name one or two columns")
        if not self.eval_splits:
            raise self._error("eval_splits", self.eval_splits, "must name at least one split")
        for field, names in (("text_columns", (*self.text_columns, "label")), ("eval_splits", self.splits)):
            if len(set(names)) != len(names):
                raise self._error(field, getattr(self, field), "must be names that differ from each other")

    def _check_labels(self) -> None:
        names = self.labels
        if names is None:
            return
        if len(names) < 2 or len(set(names)) != len(names):
            raise self._error("labels", names, "must be two or more different class names (null: regression)")
        for index, name in enumerate(names):
            if not isinstance(name, str) or (name.isdigit() and name != str(index)):
                raise self._error("labels", names, "must be text; a name that is a number must equal its id")

    def own_metrics(self) -> "Mapping[str, Callable[[np.ndarray, np.ndarray], float]]":
        """Return the metrics of a class of yours by their names; none here.

        Each takes the predictions, class ids or scores `(n,)`, and the labels `(n,)`; higher is better.
        """
        return {}

    def _check_metrics(self) -> None:
        known = (*(REGRESSION_METRICS if self.is_regression else CLASSIFICATION_METRICS), *self.own_metrics())
        if not self.metrics or not set(self.metrics) <= set(known):
            kind = "regression" if self.is_regression else "classification"
            raise self._error("metrics", self.metrics, f"must be taken from {known} for {kind}")
        if "f1" in self.metrics and self.num_labels != 2:
            raise self._error("metrics", self.metrics, "can hold f1 only for 2 labels")
        if self.headline not in self.metrics:
            raise self._error("headline", self.headline, f"must be one of the task's metrics {self.metrics}")

    def _error(self, field: str, value: object, rule: str) -> ValueError:
        return ValueError(f"`task.{field}` (={value!r}) {rule} (task {self.name!r})")
