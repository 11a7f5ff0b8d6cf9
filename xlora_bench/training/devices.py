"""Devices of a run: which one it takes on this machine, and what it cannot do on several."""

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from xlora_bench.system.options import fault


def device_faults(trainer: Mapping[str, Any]) -> list[str]:
    """Return that the devices which the trainer names are not here, or cannot have the precision."""
    accelerator, precision = trainer.get("accelerator", "auto"), trainer.get("precision", "32-true")
    device = device_here(accelerator)
    if device is None:
        return [fault("trainer.accelerator", accelerator, "is not on this machine; use cpu or auto")]
    if device == "cpu" and precision.startswith("16-"):
        return [fault("trainer.precision", precision, "needs a GPU; on a CPU use bf16-mixed or 32-true")]
    return devices_faults(trainer.get("devices", 1), device, precision)


def devices_faults(devices: int, device: str, precision: str) -> list[str]:
    """Return why a run cannot train on several devices of this type."""
    here = {"cuda": torch.cuda.device_count(), "cpu": os.cpu_count() or 1}.get(device, 1)
    if devices > here:
        what = {"cuda": "GPUs that this process sees", "cpu": "processors of this machine"}.get(device, device)
        return [fault("trainer.devices", devices, f"must be at most {here}, the number of {what}; lower it")]
    if devices > 1 and precision == "16-mixed":
        rule = "is for one device: each would scale its own gradients; use bf16-mixed, 32-true or trainer.devices=1"
        return [fault("trainer.precision", precision, rule)]
    return []


def device_here(accelerator: str) -> str | None:
    """Return the type of the device that `trainer.accelerator` takes on this machine: `cpu`, `cuda`, `mps` or None."""
    here = [
        *(["cuda"] if torch.cuda.is_available() else []),
        *(["mps"] if torch.backends.mps.is_available() else []),
        "cpu",
    ]
    wanted = {"auto": here[0], "gpu": next(iter(here[:-1]), None)}.get(accelerator, accelerator)
    return wanted if wanted in here else None


def batch_norm_faults(model: nn.Module) -> list[str]:
    """Return that a model has batch normalisation: each of several devices would use the statistics of its own rows."""
    names = [name for name, module in model.named_modules() if isinstance(module, _BatchNorm)]
    rule = "computes with statistics of the whole batch, which several devices divide; use trainer.devices=1"
    return [f"`{names[0]}` of the model {rule}"] if names else []
