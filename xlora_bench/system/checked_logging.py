"""Logging configs that call nothing but classes of `logging` and classes derived from them."""

import logging
import logging.config
from typing import Any

BASES: dict[str, type] = {"formatters": logging.Formatter, "filters": logging.Filter, "handlers": logging.Handler}
"""What an entry of each part of a logging config may be made by."""
CALLED = ("()", "class")
ALSO_CALLED = ("queue", "listener")
"""Options of `logging.handlers.QueueHandler` that `logging.config` calls in Python 3.12."""


def check_logging_config(config: dict[str, Any]) -> None:
    """Raise a ValueError if an entry of `config` names something other than a class derived from its base."""
    resolve = logging.config.BaseConfigurator({}).resolve
    for part, base in BASES.items():
        for name, entry in (config.get(part) or {}).items():
            for key, value in (entry or {}).items():
                if key in ALSO_CALLED and isinstance(value, str | dict):
                    raise ValueError(f"`{part}.{name}.{key}` (={value!r}) in a logging config is refused")
                named = resolve(value) if key in CALLED and isinstance(value, str) else base
                if not (isinstance(named, type) and issubclass(named, base)):
                    rule = f"must be a class derived from logging.{base.__name__}"
                    raise ValueError(f"`{part}.{name}.{key}` (={value!r}) in a logging config {rule}")


def checked_init(configurator: logging.config.BaseConfigurator, config: Any) -> None:
    """Check `config`, and make the configurator."""
    check_logging_config(config)
    logging.config.BaseConfigurator.__init__(configurator, config)


def check_logging_configs() -> None:
    """Check each logging config of this process before anything in it is called.

    Hydra configures logging before this program sees the config, and accepts no other `dictConfigClass`.
    """
    logging.config.DictConfigurator.__init__ = checked_init  # type: ignore[assignment]
