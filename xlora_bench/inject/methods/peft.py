"""Training methods of the `peft` library, run by that library itself."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor, nn

from xlora_bench.adapters.init_schemes import InitScheme
from xlora_bench.inject.methods.method import Method
from xlora_bench.inject.targets import Targets
from xlora_bench.system.options import Count, Fraction, OptionsError, Positive, fault, near

DATA_PASS = "needs a pass over the data before training, without which it is plain LoRA: it is not run here"
OWN_LOSS = "adds a loss of its own, which a run here would leave out"
REFUSED_INITS = {
    "eva": DATA_PASS,
    "corda": DATA_PASS,
    "lora_ga": DATA_PASS,
    "loftq": "needs the unquantised weights beside a quantised base: it is not run here",
}
"""Values of `init_lora_weights` that would be a run under a false name."""
REFUSED_OPTIONS = {
    "eva_config": DATA_PASS,
    "corda_config": DATA_PASS,
    "lora_ga_config": DATA_PASS,
    "kasa_config": OWN_LOSS,
    "monteclora_config": OWN_LOSS,
    "arrow_config": "routes among trained adapters: it is not run here",
    "alora_invocation_tokens": "is for text generation",
}
"""Options of `LoraConfig` that would be a run under a false name."""


@dataclass(frozen=True, kw_only=True)
class Peft(Method):
    """The peft method whose config class is `config_class`, built with `options` on the chosen targets.

    `rank`, `alpha` and `dropout` exist so that sweeps can set them; the YAML `options` refer to them by interpolation.
    The inits are peft's own (`options.init_lora_weights`).

    Raises:
        ValueError: if peft has no such config class or refuses the options, or a run here would not be that method.
    """

    config_class: str = "LoraConfig"
    rank: Count | None = None
    alpha: Positive | None = None
    dropout: Fraction | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        import peft  # noqa: PLC0415 - slow to import

        exported = {name: getattr(peft, name) for name in peft.__all__ if name.endswith("Config")}
        known = sorted(name for name, kind in exported.items() if issubclass(kind, peft.PeftConfig))
        if self.config_class not in known:
            raise ValueError(
                f"`adapter.config_class` (={self.config_class}) is not a config of peft; it has: {', '.join(known)}"
            )
        names = {option.name for option in fields(getattr(peft, self.config_class))}
        if unknown := [key for key in self.options if key not in names]:
            key = unknown[0]
            rule = f"is not an option of peft's {self.config_class}; {near(key, names)}"
            raise OptionsError([fault(f"adapter.options.{key}", self.options[key], rule)])
        faults = [
            fault(f"adapter.options.{key}", value, f"is refused: it {REFUSED_OPTIONS[key]}")
            for key, value in self.options.items()
            if key in REFUSED_OPTIONS and value is not None
        ]
        init = self.options.get("init_lora_weights")
        if isinstance(init, str) and init.lower() in REFUSED_INITS:
            faults.append(
                fault("adapter.options.init_lora_weights", init, f"is refused: {REFUSED_INITS[init.lower()]}")
            )
        if faults:
            raise OptionsError(faults)

    @property
    def resumable(self) -> bool:
        """False for AdaLoRA: it has running averages that are not parameters, so no checkpoint contains them."""
        return self.config_class != "AdaLoraConfig"

    def apply(
        self, model: nn.Module, *, targets: Targets, init_scheme: InitScheme, seed: int, total_steps: int
    ) -> nn.Module:
        """Wrap the model by `peft.get_peft_model`, with random draws from `seed` alone.

        Raises:
            ValueError: if an init scheme is chosen, or peft refuses the options.
        """
        import peft  # noqa: PLC0415 - slow to import

        if init_scheme.name != "builtin":
            raise ValueError(
                f"`init_scheme` (={init_scheme.name}) does not apply to peft: use init_scheme=builtin and peft's own "
                "option, for instance adapter.options.init_lora_weights=pissa"
            )
        config_class = getattr(peft, self.config_class)
        options = dict(self.options)
        if "total_step" in {option.name for option in fields(config_class)}:
            options.setdefault("total_step", total_steps)  # AdaLoRA's rank schedule
        try:
            config = config_class(target_modules=targets.names(model), **options)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"`adapter.options` (={options}) do not fit peft's {self.config_class}: {error}"
            ) from error
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return peft.get_peft_model(model, config)

    def closed_form(self, model: nn.Module) -> int | None:
        """Return `sum r (out + in)` for plain LoRA, None for peft's other methods."""
        if self.config_class != "LoraConfig" or self.options.get("use_dora"):
            return None
        from peft.tuners.lora import Linear  # noqa: PLC0415 - slow to import

        layers = [module for module in model.modules() if isinstance(module, Linear)]
        return sum(layer.r["default"] * sum(layer.weight.shape) for layer in layers)

    def ranks(self, model: nn.Module) -> dict[str, int]:
        """Return the rank by module name, for modules that have one."""
        ranks = {name: getattr(module, "r", None) for name, module in model.named_modules()}
        return {name: rank["default"] for name, rank in ranks.items() if isinstance(rank, dict) and "default" in rank}

    def penalty(self, model: nn.Module) -> Tensor | None:
        """Return AdaLoRA's `orth_reg_weight * mean ||P^T P - I||_F`.

        peft adds it only to a loss that the model itself returns. Here the loss is computed outside the model.
        """
        config: Any = model.peft_config
        weight = getattr(config["default"], "orth_reg_weight", 0.0)
        if not weight:
            return None
        grams = [
            factor @ factor.T if ".lora_A." in name else factor.T @ factor
            for name, factor in model.named_parameters()
            if ".lora_A." in name or ".lora_B." in name
        ]
        return weight * torch.stack([(gram - torch.eye(len(gram), device=gram.device)).norm() for gram in grams]).mean()

    def post_optimizer_step(self, model: nn.Module, step: int) -> None:
        """Let AdaLoRA prune its ranks."""
        update_and_allocate = getattr(model.base_model, "update_and_allocate", None)
        if update_and_allocate is not None:
            update_and_allocate(step)
