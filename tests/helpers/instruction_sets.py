"""What torch can compute with the instruction set that `ATEN_CPU_CAPABILITY` forces on it."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention


def attention_fault() -> str | None:
    """Return torch's error for bf16 attention, None if it works.

    A processor with AMX that is held to AVX2 fails: torch asks the processor, not the forced set, which kernel to take.
    """
    q = torch.ones(1, 2, 300, 64, dtype=torch.bfloat16)
    try:
        scaled_dot_product_attention(q, q, q)
    except RuntimeError as error:
        return str(error)
    return None


needs_bf16_attention = pytest.mark.skipif(attention_fault() is not None, reason=f"torch: {attention_fault()}")
