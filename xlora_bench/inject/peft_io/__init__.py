"""Export adapters to peft and import them from peft."""

from xlora_bench.inject.peft_io.exporting import export_peft
from xlora_bench.inject.peft_io.importing import import_peft

__all__ = ["export_peft", "import_peft"]
