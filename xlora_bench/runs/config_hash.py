"""Config hash: the id of a run, from every config key and data fingerprint that can change its numbers."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

COSMETIC = {
    "hydra": "where Hydra writes its own files",
    "paths": "where data and results are stored; the data fingerprint covers the content",
    "logger": "where curves and summaries are sent",
    "rerun": "whether to train a completed run again",
    "paper": "published numbers and the layout of their table",
    "report": "the layout of a table",
    "sweep": "which runs a sweep has",
    "grid": "which runs a sweep has",
    "tuning": "which runs a sweep has",
    "budget": "the budget that the rank was solved for; the rank itself is hashed",
    "monitor": "how often factors.csv gets a row",
    "task.num_workers": "how many processes make the batches, whose order and content are the same",
    "trainer.log_every_n_steps": "how often curves get a point",
    "trainer.enable_progress_bar": "whether the terminal shows a progress bar",
    "trainer.enable_model_summary": "whether a summary is printed before the first step",
    "trainer.default_root_dir": "where Lightning writes its own files",
}
"""Keys of the config that do not change what is trained or measured, each with the reason.

A key with the value null is not hashed either, so a new option that is null by default keeps the ids of old runs.
Numbers are hashed by their value: 16 and 16.0 are one run.
"""
DEVICES = "devices"
"""Option of the trainer that is hashed as 1, whatever it is; the record has the number.

A run on several devices has the rows, batches and steps of one device. Sums are rounded in another order, as with
another number of threads, and dropout masks are other draws from the same distribution. It is no key of `COSMETIC`,
since the ids of older runs contain the 1.
"""


def config_hash(config: Mapping[str, Any], *, data: str) -> str:
    """Return the run id: 16 hex digits of SHA-256 over the resolved `config` and the data fingerprint `data`."""
    content = {"config": canonical(relevant(config)), "data": data}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def relevant(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return `config` without its cosmetic keys and on one device; what is left is shared with it."""
    kept = {key: node for key, node in config.items() if key not in COSMETIC}
    for key in COSMETIC:
        group, dot, option = key.partition(".")
        if dot and isinstance(kept.get(group), dict):
            kept[group] = {name: value for name, value in kept[group].items() if name != option}
    trainer = kept.get("trainer")
    if isinstance(trainer, dict) and DEVICES in trainer:
        kept["trainer"] = {**trainer, DEVICES: 1}
    return kept


def canonical(node: Any) -> Any:
    """Return `node` without null entries of mappings, and with whole numbers as integers, at every depth."""
    if isinstance(node, dict):
        return {key: canonical(value) for key, value in node.items() if value is not None}
    if isinstance(node, list):
        return [canonical(value) for value in node]
    return int(node) if isinstance(node, float) and node.is_integer() else node
