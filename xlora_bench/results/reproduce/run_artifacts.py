"""Artifacts of a recorded run: record, predictions, trained tensors, and their digests."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from safetensors import SafetensorError
from safetensors.torch import load_file

from xlora_bench.results.frame.predictions_file import read_predictions
from xlora_bench.runs.record import Record, record_paths
from xlora_bench.system.tensor_hash import bytes_of

if TYPE_CHECKING:
    from torch import Tensor

FILES = {"predictions": "predictions.parquet", "tensors": "adapter.safetensors"}


@dataclass(frozen=True, kw_only=True)
class RunArtifacts:
    """A record, the `folder` of its run (None: read from an archive), and the digests that the archive recorded."""

    record: Record
    folder: Path | None
    recorded_digests: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def predictions(self) -> pd.DataFrame | None:
        """Predictions, one row per (epoch, split, example); None if there is no file."""
        return self._read("predictions", read_predictions)

    @cached_property
    def tensors(self) -> "dict[str, Tensor] | None":
        """Trained tensors after the last epoch; None if there is no file."""
        return self._read("tensors", load_file)

    @cached_property
    def digests(self) -> dict[str, str]:
        """Hashes of predictions and trained tensors, from the files or else from the archive."""
        known = dict(self.recorded_digests)
        if self.predictions is not None:
            known["predictions"] = digest_of_frame(self.predictions)
        if self.tensors is not None:
            known["tensors"] = digest_of_tensors(self.tensors)
        return known

    def _read(self, what: str, read: Callable[[Path], Any]) -> Any:
        """Return the content of a file of the run, None if there is none; a ValueError names a damaged one."""
        path = None if self.folder is None else self.folder / FILES[what]
        if path is None or not path.is_file():
            return None
        try:
            return read(path)
        except (OSError, ValueError, SafetensorError) as error:
            raise ValueError(f"`{path}` cannot be read: {error}") from error


def read_run(folder: Path) -> RunArtifacts:
    """Return the artifacts of the run in `folder`.

    Raises:
        ValueError: if it has no readable record.
    """
    return RunArtifacts(record=Record.read(folder / "record.json"), folder=folder)


def find_run(run_name: str | Path, *, results_dir: Path | None = None) -> RunArtifacts:
    """Return the run named by its folder, its `record.json`, or the start of its id in `results_dir`.

    Raises:
        ValueError: if there is no such run, or several ids match.
    """
    path = Path(run_name)
    if path.name == "record.json":
        path = path.parent
    if (path / "record.json").is_file():
        return read_run(path)
    matches = [] if results_dir is None else record_paths(results_dir, f"{path.name}*")
    if len(matches) > 1:
        raise ValueError(f"{run_name!s} begins the ids of {len(matches)} runs in {results_dir}; write more of it")
    if not matches:
        where = "" if results_dir is None else f", nor the id of a recorded run in {results_dir}"
        raise ValueError(
            f"{run_name!s} is no folder with a record.json{where}; give a run's folder, or an id and --results-dir"
        )
    return read_run(matches[0].parent)


def digest_of_frame(frame: pd.DataFrame) -> str:
    """Return a hash of names, types and values of the columns, independent of the library that wrote the file."""
    digest = hashlib.sha256()
    for name in sorted(frame.columns):
        column = frame[name]
        if isinstance(column.dtype, pd.CategoricalDtype) or not pd.api.types.is_numeric_dtype(column.dtype):
            content, kind = "\n".join(column.astype(str)).encode(), "text"
        else:
            content, kind = column.to_numpy().tobytes(), str(column.dtype)
        digest.update(f"{name} {kind} {len(content)};".encode() + content)
    return digest.hexdigest()[:32]


def digest_of_tensors(tensors: "Mapping[str, Tensor]") -> str:
    """Return a hash of names, types, shapes and bytes of the tensors."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(bytes_of(tensor))
    return digest.hexdigest()[:32]
