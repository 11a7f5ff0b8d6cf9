"""Make the record of a run from its outcome."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from xlora_bench.runs import provenance
from xlora_bench.runs.record import Record
from xlora_bench.training.resolve import RunRequest


def record_of(request: RunRequest, outcome: Mapping[str, Any], *, started: str) -> Record:
    """Return the record of a run: its config, `outcome`, and the code, versions and machine that made it."""
    run = request.run
    hashes = {**outcome.get("hashes", {}), **({"parent": request.parent.run.id} if request.parent else {})}
    return Record(
        **{
            **outcome,
            "run_id": run.id,
            "config": run.config,
            "choices": run.choices,
            "seed": run.config["seed"],
            "hashes": hashes,
            "code": provenance.code(),
            "versions": provenance.versions(),
            "machine": provenance.machine(),
            "started": started,
            "finished": now(),
        }
    )


def now() -> str:
    """Return the current time, ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")
