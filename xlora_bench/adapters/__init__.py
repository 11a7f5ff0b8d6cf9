"""LoRA variants, one file each. A variant is registered by `_target_` in `conf/adapter/<name>.yaml`."""

from xlora_bench.adapters.asymmetric import Asymmetric
from xlora_bench.adapters.base import Adapter
from xlora_bench.adapters.cholesky import Cholesky
from xlora_bench.adapters.delta import Delta
from xlora_bench.adapters.dora import DoRA
from xlora_bench.adapters.loldu import LoLDU
from xlora_bench.adapters.lora import LoRA
from xlora_bench.adapters.lora_plus import LoRAPlus
from xlora_bench.adapters.lora_xs import LoRAXS
from xlora_bench.adapters.lu import LU
from xlora_bench.adapters.orthogonal import Orthogonal
from xlora_bench.adapters.orthogonal_qr import OrthogonalQR
from xlora_bench.adapters.vera import VeRA

__all__ = [
    "LU",
    "Adapter",
    "Asymmetric",
    "Cholesky",
    "Delta",
    "DoRA",
    "LoLDU",
    "LoRA",
    "LoRAPlus",
    "LoRAXS",
    "Orthogonal",
    "OrthogonalQR",
    "VeRA",
]
