"""The name of a run: a hash of everything that can change its numbers, and of nothing else."""

import copy
import hashlib
import json
from collections.abc import Mapping
from typing import Any

COSMETIC = {
    "hydra": "where Hydra writes its own files",
    "paths": "where data and results lie; what the data says is in the fingerprint",
    "logger": "who is told about the run",
    "rerun": "whether to train a finished run again",
    "paper": "published numbers and the layout of their table",
    "report": "the layout of a table",
    "grid": "which runs a sweep has",
    "tuning": "which runs a sweep has",
    "budget": "what the rank was solved for; the rank itself counts",
    "monitor": "how often factors.csv gets a row",
    "trainer.log_every_n_steps": "how often curves get a point",
    "trainer.enable_progress_bar": "what is drawn on the terminal",
    "trainer.enable_model_summary": "what is printed before the first step",
    "trainer.default_root_dir": "where Lightning writes its own files",
}
"""Keys of the config that do not change what is trained or measured, each with the reason.

A key that is null says nothing either: an option added later, null by default, leaves the names of old runs alone.
"""


def config_hash(config: Mapping[str, Any], *, data: str) -> str:
    """Return the 16 hex digits that name the run of a resolved `config` on data of fingerprint `data`."""
    content = {"config": without_nulls(relevant(config)), "data": data}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def relevant(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of `config` without its cosmetic keys."""
    kept = copy.deepcopy(dict(config))
    for key in COSMETIC:
        *parents, last = key.split(".")
        node: Any = kept
        for parent in parents:
            node = node.get(parent) if isinstance(node, dict) else None
        if isinstance(node, dict):
            node.pop(last, None)
    return kept


def without_nulls(node: Any) -> Any:
    """Return `node` without the keys of its mappings that are null."""
    if not isinstance(node, dict):
        return node
    return {key: without_nulls(value) for key, value in node.items() if value is not None}
