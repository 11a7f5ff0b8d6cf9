"""Log levels: silence the output of other libraries."""

import logging
import os
import warnings

CHATTY = ("lightning.pytorch", "lightning.fabric", "httpx", "datasets", "fsspec", "torchao", "torch.utils._pytree")


def set_log_levels() -> None:
    """Silence progress bars, hints and warnings of libraries that a user of a sweep cannot act on."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    warnings.filterwarnings("ignore", module="lightning.*")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
    warnings.filterwarnings("ignore", category=FutureWarning, message=".*gradient_checkpointing.*")

    import lightning.pytorch  # noqa: PLC0415, F401 - importing it resets its log levels, so import it first
    import transformers  # noqa: PLC0415 - slow to import

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.ERROR)
