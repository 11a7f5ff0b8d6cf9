"""Compare LoRA variants: adapters, init schemes, training runs and tables.

Every public name is imported when it is first used, so that `import xlora_bench` is fast and prints nothing. Type
checkers read the imports below, whose `as` says that a name is public.
"""

import sys
from importlib import import_module
from importlib.metadata import version
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xlora_bench import inject as inject
    from xlora_bench.adapters import LU as LU
    from xlora_bench.adapters import Adapter as Adapter
    from xlora_bench.adapters import Asymmetric as Asymmetric
    from xlora_bench.adapters import Cholesky as Cholesky
    from xlora_bench.adapters import Delta as Delta
    from xlora_bench.adapters import DoRA as DoRA
    from xlora_bench.adapters import LoLDU as LoLDU
    from xlora_bench.adapters import LoRA as LoRA
    from xlora_bench.adapters import LoRAPlus as LoRAPlus
    from xlora_bench.adapters import LoRAXS as LoRAXS
    from xlora_bench.adapters import Orthogonal as Orthogonal
    from xlora_bench.adapters import OrthogonalQR as OrthogonalQR
    from xlora_bench.adapters import VeRA as VeRA
    from xlora_bench.adapters.init_schemes import BuiltinInit as BuiltinInit
    from xlora_bench.adapters.init_schemes import GaussianInit as GaussianInit
    from xlora_bench.adapters.init_schemes import InitScheme as InitScheme
    from xlora_bench.adapters.init_schemes import KaimingInit as KaimingInit
    from xlora_bench.adapters.init_schemes import LDUInit as LDUInit
    from xlora_bench.adapters.init_schemes import OrthonormalInit as OrthonormalInit
    from xlora_bench.adapters.init_schemes import QRInit as QRInit
    from xlora_bench.adapters.init_schemes import SVDInit as SVDInit
    from xlora_bench.adapters.init_schemes import UnitDiagonalInit as UnitDiagonalInit
    from xlora_bench.adapters.init_schemes import ZeroInit as ZeroInit
    from xlora_bench.data.task import TextTask as TextTask
    from xlora_bench.inject import add_adapter as add_adapter
    from xlora_bench.inject import load_adapter as load_adapter
    from xlora_bench.inject import merge as merge
    from xlora_bench.inject import remove as remove
    from xlora_bench.inject import route as route
    from xlora_bench.inject import save_adapter as save_adapter
    from xlora_bench.inject import use_adapters as use_adapters
    from xlora_bench.inject.methods import Baseline as Baseline
    from xlora_bench.inject.methods import Method as Method
    from xlora_bench.inject.methods import Peft as Peft
    from xlora_bench.inject.peft_io import export_peft as export_peft
    from xlora_bench.inject.peft_io import import_peft as import_peft
    from xlora_bench.inject.targets import Targets as Targets
    from xlora_bench.models.pretrained import Pretrained as Pretrained
    from xlora_bench.results.frame.collect import collect as collect
    from xlora_bench.runs.record import Record as Record
    from xlora_bench.sweeps.reporting.callback import SweepReport as SweepReport
    from xlora_bench.training.load_run import load_run as load_run
    from xlora_bench.training.loggers import CSVLogs as CSVLogs
    from xlora_bench.training.loggers import RunLabels as RunLabels
    from xlora_bench.training.loggers import RunLogs as RunLogs
    from xlora_bench.training.loggers import TrackioLogs as TrackioLogs
    from xlora_bench.training.loggers import WandbLogs as WandbLogs
    from xlora_bench.training.loop.optimizers import AdamW as AdamW
    from xlora_bench.training.loop.optimizers import Schedule as Schedule

    __version__: str

_MODULES = {
    "adapters": ("Adapter Asymmetric Cholesky Delta DoRA LU LoLDU LoRA LoRAPlus LoRAXS Orthogonal OrthogonalQR VeRA"),
    "adapters.init_schemes": (
        "BuiltinInit GaussianInit InitScheme KaimingInit LDUInit OrthonormalInit QRInit SVDInit UnitDiagonalInit "
        "ZeroInit"
    ),
    "data.task": "TextTask",
    "inject": "add_adapter load_adapter merge remove route save_adapter use_adapters",
    "inject.methods": "Baseline Method Peft",
    "inject.peft_io": "export_peft import_peft",
    "inject.targets": "Targets",
    "models.pretrained": "Pretrained",
    "results.frame.collect": "collect",
    "runs.record": "Record",
    "sweeps.reporting.callback": "SweepReport",
    "training.load_run": "load_run",
    "training.loggers": "CSVLogs RunLabels RunLogs TrackioLogs WandbLogs",
    "training.loop.optimizers": "AdamW Schedule",
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names.split()}

__all__ = [*_MODULE_OF, "__version__", "inject"]


if not TYPE_CHECKING:  # else a type checker would accept every name

    def __getattr__(name: str) -> Any:
        if name == "__version__":
            return version("xlora-bench")
        if name == "inject":
            return import_module("xlora_bench.inject")
        if name in _MODULE_OF:
            return getattr(import_module(f"xlora_bench.{_MODULE_OF[name]}"), name)
        if name[:1].isupper() and (added := _in_a_file_of_its_own(name)) is not None:
            return added
        raise AttributeError(f"module 'xlora_bench' has no attribute {name!r}")


def _in_a_file_of_its_own(name: str) -> Any:
    """Return the class `name` from a file that was added to `adapters/` or `adapters/init_schemes/`, else None."""
    for package in ("xlora_bench.adapters", "xlora_bench.adapters.init_schemes"):
        for module in iter_modules(import_module(package).__path__, f"{package}."):
            import_module(module.name)
    added = [module for path, module in list(sys.modules.items()) if path.startswith("xlora_bench.adapters.")]
    return next((vars(module)[name] for module in added if name in vars(module)), None)


def __dir__() -> list[str]:
    return sorted(__all__)
