"""Init schemes: how the factors of a delta start. One small file each."""

from xlora_bench.init_schemes.base import InitScheme, Start
from xlora_bench.init_schemes.gaussian import Gaussian
from xlora_bench.init_schemes.kaiming import Kaiming
from xlora_bench.init_schemes.ldu import LDUStart
from xlora_bench.init_schemes.orthonormal import Orthonormal
from xlora_bench.init_schemes.own import Own
from xlora_bench.init_schemes.qr import QRStart
from xlora_bench.init_schemes.svd import SingularVectors
from xlora_bench.init_schemes.unit_diagonal import UnitDiagonal
from xlora_bench.init_schemes.zero import Zero

__all__ = [
    "Gaussian",
    "InitScheme",
    "Kaiming",
    "LDUStart",
    "Orthonormal",
    "Own",
    "QRStart",
    "SingularVectors",
    "Start",
    "UnitDiagonal",
    "Zero",
]
