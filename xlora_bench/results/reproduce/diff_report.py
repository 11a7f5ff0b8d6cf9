"""Report on two runs: differences in config, data, code, versions and machine, and which of them explain numbers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from xlora_bench.results.frame.collect import naming_choices, requested_columns
from xlora_bench.results.reproduce.run_artifacts import RunArtifacts
from xlora_bench.results.reproduce.run_diff import RunDiff, run_diff
from xlora_bench.runs.record import Record

REQUESTED = ("config", "seed", "data", "weights", "tokenizer", "parent")
"""Sections whose difference makes it another run, with other numbers expected."""
MACHINE = ("cpu", "threads", "gpus")
"""Machine entries that can change a number."""
COSMETIC_VERSIONS = ("wandb",)
WHY = {
    "code": "other code may compute something else",
    "versions": "other versions order or round sums differently",
    "cpu": "another processor takes other kernels, which round differently",
    "gpus": "another GPU takes other kernels, which round differently",
    "threads": "threads share out sums, so another number of them rounds differently",
}
MISSING = "-"

Sections = dict[str, dict[str, tuple[Any, Any]]]


@dataclass(frozen=True, kw_only=True)
class DiffReport:
    """Differences of two records by section, the difference of their outcomes, and the verdict in words."""

    sections: Sections
    diff: RunDiff
    verdict: str


def diff_report(left: RunArtifacts, right: RunArtifacts) -> DiffReport:
    """Compare two runs: recorded differences, outcomes, verdict."""
    sections = differences(left.record, right.record)
    diff = run_diff(left, right)
    return DiffReport(sections=sections, diff=diff, verdict=verdict(sections, diff))


def differences(left: Record, right: Record) -> Sections:
    """Return, by section and key, both values of all recorded entries that differ; empty sections are left out.

    A null value counts as absent.
    """
    theirs = facts(right)
    result = {section: unequal(one, theirs[section]) for section, one in facts(left).items()}
    return {section: keys for section, keys in result.items() if keys}


def facts(record: Record) -> dict[str, dict[str, Any]]:
    """Return the entries of a record except its outcome, by section, with dotted keys."""
    hashes = {name: {name: record.hashes.get(name)} for name in ("data", "weights", "tokenizer", "parent")}
    config = {key: value for key, value in requested_columns(record.config, {}).items() if key != "seed"}
    ranks = {f"rank at {module_name}": rank for module_name, rank in record.ranks.items()}
    return {
        "choices": naming_choices(record.choices),
        "config": config,
        "seed": {"seed": record.seed},
        **hashes,
        "code": record.code,
        "versions": record.versions,
        "machine": record.machine,
        "parameters": {**record.parameters, **ranks},
    }


def unequal(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the keys whose values differ, in order, with both values."""
    keys = dict.fromkeys([*one, *other])
    return {key: (one.get(key), other.get(key)) for key in keys if one.get(key) != other.get(key)}


def around(sections: Sections) -> dict[str, str]:
    """Return the differences in code, versions and machine that can change numbers, each with the reason."""
    result = {}
    if "code" in sections or uncommitted(sections):
        result["code"] = WHY["code"]
    if versions := [name for name in sections.get("versions", {}) if name not in COSMETIC_VERSIONS]:
        result[f"versions of {', '.join(versions)}"] = WHY["versions"]
    for key in MACHINE:
        if key in sections.get("machine", {}):
            one, other = sections["machine"][key]
            result[f"{key} ({shown(one)} and {shown(other)})"] = WHY[key]
    return result


def uncommitted(sections: Sections) -> bool:
    """Whether `dirty` differs: one run used committed code, the other did not."""
    return "dirty" in sections.get("code", {})


def verdict(sections: Sections, diff: RunDiff) -> str:
    """Return in words whether different outcomes are expected, and the possible reasons."""
    request = [section for section in REQUESTED if section in sections]
    settings = around(sections)
    numbers = "the numbers are the same to the bit" if diff.identical else "the numbers differ"
    if request:
        differing = [", ".join(sections["config"]) if section == "config" else section for section in request]
        return f"two different runs: they differ in {', '.join(differing)}, so they are expected to differ; {numbers}"
    if diff.identical:
        where = f"although {', '.join(settings)} differ" if settings else "on the same machine, versions and threads"
        return f"the same run {where}: bit-identical ({', '.join(diff.compared)})"
    if settings:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in settings.items())
        return f"the same run, made differently: {reasons}"
    return (
        "nothing that is recorded differs, yet the numbers do: nondeterminism (a GPU's kernels, say), changes to the "
        "code that were not committed, or settings of the environment (BLAS, oneDNN) are left; `verify` tells if "
        "this machine repeats itself"
    )


def shown(value: Any) -> str:
    """Return a value as text: `-` for None, integers with thousands separators."""
    if value is None or value == []:
        return MISSING
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
