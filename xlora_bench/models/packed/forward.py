"""Forward for padded, packed and unpadded batches. The model's pooler and head run unmodified on (N, 1, d)."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from xlora_bench.data.packing.packed import Batch
from xlora_bench.inject.query import is_routed
from xlora_bench.models.packed.attention_patch import attends_jointly
from xlora_bench.models.packed.structure import classifier_of, masks_embeddings, plain_attention, pooling_module_of

INPUTS = ("input_ids", "attention_mask", "token_type_ids", "position_ids")


def forward(model: nn.Module, batch: Batch) -> Tensor:
    """Return the logits (N, labels) of a Hugging Face classifier for a batch of any layout.

    Raises:
        ValueError: if the batch is packed and the rows are routed to adapters.
    """
    if "first" not in batch:
        return model(**inputs_of(batch)).logits
    refuse_routes(model)
    net = classifier_of(model)
    with _first_tokens_only(net, batch):
        if "rows" in batch:
            return model(**inputs_of(batch), attention_mask=_unread(net), rows=batch["rows"]).logits
        mask = block_mask(batch["segment_ids"], boolean=masks_embeddings(net), dtype=net.dtype)
        return model(**inputs_of(batch), attention_mask=mask).logits


def inputs_of(batch: Batch) -> dict[str, Tensor]:
    """Return what the model reads of a batch of any layout, except the mask of a packed or unpadded one."""
    return {name: batch[name] for name in INPUTS if name in batch}


def refuse_routes(model: nn.Module) -> None:
    """Raise ValueError if the rows of `model` are routed to adapters, which packed rows cannot be."""
    if is_routed(model):
        raise ValueError("packed batches hold several sentences in a row, so rows cannot be routed; use layout=padded")


def block_mask(segment_ids: Tensor, *, boolean: bool, dtype: torch.dtype) -> Tensor:
    """Return the (rows, 1, L, L) attention mask in which a token sees its own sentence only, boolean or additive.

    Padding sees padding: a softmax over no token at all would give NaN.
    """
    same = segment_ids[:, None, :, None] == segment_ids[:, None, None, :]
    if boolean:
        return same
    hidden = torch.finfo(dtype).min
    return torch.zeros(same.shape, dtype=dtype, device=same.device).masked_fill_(~same, hidden)


def _unread(net: PreTrainedModel) -> Tensor:
    """Return a mask of NaN. Attention by `rows` does not read it; any other attention gives NaN logits."""
    return torch.full((1, 1, 1, 1), float("nan"), dtype=net.dtype, device=net.device)


@contextmanager
def _first_tokens_only(net: PreTrainedModel, batch: Batch) -> Iterator[None]:
    """Within a `with` block, reduce the hidden states to the first tokens at or in the model's pooling module."""
    pooling_module, first, blocks = pooling_module_of(net), batch["first"], plain_attention(net)

    def pool(module: nn.Module, args: Any, output: Any) -> Any:
        return pooled(output, first)

    with ExitStack() as hooks:
        for block in blocks:
            indices = {name: batch[name] for name in ("queries", "answers")} if block is pooling_module else {}
            hooks.enter_context(attends_jointly(block, **indices))
        if pooling_module not in blocks:
            hooks.enter_context(pooling_module.register_forward_hook(pool))
        if masks_embeddings(net):
            embeddings = net.base_model.get_submodule("embeddings")
            hooks.enter_context(embeddings.register_forward_pre_hook(without_mask, with_kwargs=True))
        yield


def pooled(output: Any, first: Tensor) -> Any:
    """Replace the hidden states (rows, L, d) of a module's output by (N, 1, d)."""
    if isinstance(output, Tensor):
        return output.flatten(0, 1)[first].unsqueeze(1)
    if isinstance(output, tuple):
        return pooled(output[0], first), *output[1:]
    output.last_hidden_state = pooled(output.last_hidden_state, first)
    return output


def without_mask(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Hide the mask from DeBERTa's embeddings, which zero padding. A 4-D mask cannot; no token sees the padding."""
    return args, kwargs | {"mask": None}
