"""Baselines without an adapter: the trained parameters are given by name patterns."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from xlora_bench.adapters.init_schemes import InitScheme
from xlora_bench.inject.head_names import head_parameter_names
from xlora_bench.inject.methods.method import Method
from xlora_bench.inject.targets import Targets


@dataclass(frozen=True, kw_only=True)
class Baseline(Method):
    """Train the head and every base parameter whose name matches one of the regular expressions `trainable`.

    `full` is `[".*"]`, `head` is `[]`, `bitfit` (arXiv 2106.10199) is `["\\.bias$"]`.
    """

    trainable: Sequence[str] = ()

    def apply(
        self, model: nn.Module, *, targets: Targets, init_scheme: InitScheme, seed: int, total_steps: int
    ) -> nn.Module:
        """Freeze the base except for the parameters that `trainable` matches.

        Raises:
            ValueError: if a pattern matches no base parameter, or an init scheme was chosen.
        """
        if init_scheme.name != "builtin":
            raise ValueError(
                f"`init_scheme` (={init_scheme.name}) does not apply to a baseline: use init_scheme=builtin"
            )
        head = head_parameter_names(model)
        base = {name: parameter for name, parameter in model.named_parameters() if name not in head}
        for parameter in base.values():
            parameter.requires_grad_(False)
        for pattern in self.trainable:
            matched = [parameter for name, parameter in base.items() if re.search(pattern, name)]
            if not matched:
                raise ValueError(
                    f"`adapter.trainable` pattern {pattern!r} matches no base parameter, such as {next(iter(base))}"
                )
            for parameter in matched:
                parameter.requires_grad_(True)
        return model
