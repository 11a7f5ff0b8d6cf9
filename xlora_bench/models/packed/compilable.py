"""Forward for padded and packed batches that `torch.compile` can trace into one graph."""

from typing import Any

from torch import Tensor, nn

from xlora_bench.data.packing.packed import Batch
from xlora_bench.models.packed.forward import block_mask, inputs_of, pooled, refuse_routes, without_mask
from xlora_bench.models.packed.structure import classifier_of, masks_embeddings, pooling_module_of


class CompilableForward(nn.Module):
    """`logits (N, labels) = CompilableForward(model)(batch)`, for a Hugging Face classifier with or without adapters.

    `forward` replaces methods of the model and registers hooks in each call, which `torch.compile` cannot trace. Here
    the hooks are registered once and do nothing unless a packed batch is computed. The numbers are those of `forward`;
    the attention blocks of the BERT family compute all tokens of the last layer instead of the first ones only.

    Example: `step = torch.compile(CompilableForward(model), fullgraph=True)`.

    Raises:
        ValueError: if a batch has no padding at all (`rows`), or it is packed and the rows are routed to adapters.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.first: Tensor | None = None  # of the batch that is computed now, if it is packed
        net = classifier_of(model)
        self.boolean, self.dtype = masks_embeddings(net), net.dtype
        self.handles = [pooling_module_of(net).register_forward_hook(self._pool)]
        if self.boolean:
            embeddings = net.base_model.get_submodule("embeddings")
            self.handles.append(embeddings.register_forward_pre_hook(self._embed, with_kwargs=True))

    def forward(self, batch: Batch) -> Tensor:
        """Return the logits (N, labels) of a padded or packed batch."""
        if "rows" in batch:
            raise ValueError("batches without padding (`rows`) cannot be compiled; use `PackedCollator`")
        inputs, first = inputs_of(batch), batch.get("first")
        if first is not None:
            refuse_routes(self.model)
            inputs["attention_mask"] = block_mask(batch["segment_ids"], boolean=self.boolean, dtype=self.dtype)
        self.first = first
        try:
            logits: Tensor = self.model(**inputs).logits
        finally:
            self.first = None
        return logits

    def remove(self) -> None:
        """Remove the hooks from the model."""
        for handle in self.handles:
            handle.remove()

    def _pool(self, module: nn.Module, args: Any, output: Any) -> Any:
        return output if self.first is None else pooled(output, self.first)

    def _embed(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        return None if self.first is None else without_mask(module, args, kwargs)
