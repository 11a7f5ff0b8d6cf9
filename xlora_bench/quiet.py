"""Keep libraries from talking over the results."""

import logging
import os
import warnings


def quiet() -> None:
    """Silence progress bars, hints and warnings that a user of a sweep cannot act on."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    for name in ("lightning.pytorch", "lightning.fabric", "httpx", "datasets", "fsspec"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning.*")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
    warnings.filterwarnings("ignore", category=FutureWarning, message=".*is_gradient_checkpointing.*")

    import transformers  # noqa: PLC0415 - slow to import

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
