"""Init schemes: the initial factors `B0`, `A0` of a delta. One file each."""

from xlora_bench.adapters.init_schemes.base import InitialFactors, InitScheme
from xlora_bench.adapters.init_schemes.builtin import BuiltinInit
from xlora_bench.adapters.init_schemes.gaussian import GaussianInit
from xlora_bench.adapters.init_schemes.kaiming import KaimingInit
from xlora_bench.adapters.init_schemes.ldu import LDUInit
from xlora_bench.adapters.init_schemes.orthonormal import OrthonormalInit
from xlora_bench.adapters.init_schemes.qr import QRInit
from xlora_bench.adapters.init_schemes.svd import SVDInit
from xlora_bench.adapters.init_schemes.unit_diagonal import UnitDiagonalInit
from xlora_bench.adapters.init_schemes.zero import ZeroInit

__all__ = [
    "BuiltinInit",
    "GaussianInit",
    "InitScheme",
    "InitialFactors",
    "KaimingInit",
    "LDUInit",
    "OrthonormalInit",
    "QRInit",
    "SVDInit",
    "UnitDiagonalInit",
    "ZeroInit",
]
