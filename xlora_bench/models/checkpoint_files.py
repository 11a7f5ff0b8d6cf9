"""Checks of a checkpoint's files before any weight is loaded: config, tokenizer, names in the safetensors header."""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from xlora_bench.inject.head_names import head_parameter_names
from xlora_bench.models.pretrained import Pretrained
from xlora_bench.system.lru_cache import file_fingerprint
from xlora_bench.system.options import fault

TOKENIZER_FILES = (
    *("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "spm.model"),
    *("sentencepiece.bpe.model", "tokenizer.model"),
)
RENAMED = {"gamma": "weight", "beta": "bias"}
"""Names of layer-norm parameters in old checkpoints, and their present names."""


def checkpoint_faults(options: Pretrained) -> list[str]:
    """Return what is wrong with a checkpoint in a local folder; of the Hub, that neither it nor a copy is there."""
    try:
        location = Path(options.location())
        if location.is_dir():
            return folder_faults(options, location)
        return hub_faults(options)
    except ValueError as error:
        return str(error).splitlines()


def folder_faults(options: Pretrained, folder: Path) -> list[str]:
    """Return the faults of a local checkpoint."""
    if faults := config_faults(options, folder):
        return faults
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        rule = f"has no tokenizer: one of {', '.join(TOKENIZER_FILES)} must be in {folder}"
        return [fault("model.name", options.name, rule)]
    try:
        options.tokenizer()
    except Exception as error:
        reason = str(error).splitlines()[0][:200]
        return [fault("model.name", options.name, f"has a tokenizer that cannot be read in {folder} ({reason})")]
    return [*forward_faults(options), *weight_faults(options, folder)]


def forward_faults(options: Pretrained) -> list[str]:
    """Return why the model could not compute a padded batch with these options."""
    model = meta_classifier(options, 2)
    kind, faults = type(model).__name__, []
    if options.attention == "sdpa" and not model._supports_sdpa:
        faults.append(fault("model.attention", "sdpa", f"is not there for {kind}; use model.attention=eager"))
    if getattr(model.config, "pad_token_id", None) is None and hasattr(model, "score"):
        rule = f"has no pad_token_id, by which {kind} finds the last token of a sentence; set it in its config.json"
        faults.append(fault("model.name", options.name, rule))
    return faults


def config_faults(options: Pretrained, folder: Path) -> list[str]:
    """Return why `config.json` gives no classifier that can be trained here."""
    path = folder / "config.json"
    try:
        model_type = json.loads(path.read_text())["model_type"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return [fault("model.name", options.name, f"needs a config.json with `model_type` in {folder} ({error!r})")]
    try:
        config = meta_classifier(options, 2).config
    except Exception as error:
        reason = str(error).splitlines()[0][:200]
        return [fault("model.name", options.name, f"is a {model_type}, which gives no sequence classifier ({reason})")]
    if getattr(config, "is_encoder_decoder", False):
        return [fault("model.name", options.name, f"is an encoder-decoder ({model_type}); use an encoder or a decoder")]
    return []


def weight_faults(options: Pretrained, folder: Path) -> list[str]:
    """Return that weights outside the head are missing, by the names in the safetensors header."""
    names = stored_names(folder)
    if names is None:
        rule = f"has no safetensors weights in {folder}; save them with `model.save_pretrained(folder)`"
        return [fault("model.name", options.name, rule)]
    model = meta_classifier(options, 2)
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    held = {renamed(name).removeprefix(prefix) for name in names}
    missing = [name for name in base_names(model) if name.removeprefix(prefix) not in held]
    return [missing_weights(options, missing)] if missing else []


def base_names(model: nn.Module) -> list[str]:
    """Return the parameters that a checkpoint must have: all outside the head and the pooler, tied ones once."""
    head = head_parameter_names(model)
    return [name for name, _ in model.named_parameters() if name not in head and ".pooler." not in f".{name}"]


def missing_weights(options: Pretrained, missing: list[str]) -> str:
    """Return the line for a checkpoint that lacks weights of its own model."""
    some = ", ".join(missing[:3])
    rule = (
        f"lacks {len(missing)} weight{'s' * (len(missing) > 1)} outside the head ({some}), which would be random; "
        "check `model_type` and the number of layers in its config.json"
    )
    return fault("model.name", options.name, rule)


def renamed(name: str) -> str:
    """Return a stored name as the model has it."""
    path, _, last = name.rpartition(".")
    return f"{path}.{RENAMED.get(last, last)}" if path else name


def stored_names(folder: Path) -> set[str] | None:
    """Return the names in the safetensors files of a folder; None if there are none.

    Raises:
        ValueError: if a file is damaged.
    """
    from safetensors import SafetensorError, safe_open  # noqa: PLC0415 - only where weights are checked

    index = folder / "model.safetensors.index.json"
    try:
        if index.is_file():
            return set(json.loads(index.read_text())["weight_map"])
        path = folder / "model.safetensors"
        if not path.is_file():
            return None
        with safe_open(path, framework="pt") as file:
            return set(file.keys())
    except (SafetensorError, ValueError, KeyError, OSError) as error:
        raise ValueError(f"{folder}: damaged safetensors weights ({error}); copy the checkpoint again") from error


def is_on_disk(options: Pretrained) -> bool:
    """Return whether the checkpoint is in a folder, in an installed package, or in the local cache of the Hub."""
    from huggingface_hub import try_to_load_from_cache  # noqa: PLC0415 - slow to import

    if "/" not in options.name or Path(options.location()).is_dir():
        return True
    if options.name.startswith((".", "/", "~")):
        return True
    cached = try_to_load_from_cache(options.name, "config.json", revision=options.revision or "main")
    return isinstance(cached, str)


def hub_faults(options: Pretrained) -> list[str]:
    """Return that a checkpoint is neither in the local cache of the Hub nor reachable within some seconds."""
    from huggingface_hub import HfApi, constants  # noqa: PLC0415 - slow to import

    if "/" not in options.name or options.name.startswith((".", "/", "~")):
        return [fault("model.name", options.name, "is neither a folder nor an id on the Hub (owner/name)")]
    if is_on_disk(options):
        return []
    if constants.HF_HUB_OFFLINE:
        return [str(options.unreachable(OSError("it is not in the local cache, and HF_HUB_OFFLINE=1")))]
    try:
        HfApi().model_info(options.name, revision=options.revision or "main", timeout=5)
    except Exception as error:
        return [str(options.unreachable(OSError(str(error))))]
    return []


def meta_classifier(options: Pretrained, num_labels: int) -> Any:
    """Return the classifier on the meta device: every shape, no weight. Not to be changed: copy it first.

    Raises:
        ValueError: if the checkpoint's config cannot be found or reached.
    """
    return _meta_classifier(options, num_labels, file_fingerprint(Path(options.location())))


@lru_cache(maxsize=8)
def _meta_classifier(options: Pretrained, num_labels: int, files: object) -> Any:
    from transformers import AutoConfig, AutoModelForSequenceClassification  # noqa: PLC0415 - slow to import

    try:
        config = AutoConfig.from_pretrained(
            options.location(), revision=options.revision or "main", num_labels=num_labels, trust_remote_code=False
        )
    except OSError as error:
        raise options.unreachable(error) from error
    with torch.device("meta"):
        return AutoModelForSequenceClassification.from_config(config, attn_implementation="eager")
