"""Name of the sweep whose job this process runs; W&B groups runs by it. It changes no number."""

_name: str | None = None


def enter_sweep(name: str) -> None:
    """Set the sweep name; called when a job of the sweep starts."""
    global _name  # noqa: PLW0603 - Hydra calls the two hooks separately, at the start and at the end of a job
    _name = name


def leave_sweep() -> None:
    """Clear the sweep name; called when the job ends."""
    global _name  # noqa: PLW0603 - as above
    _name = None


def running_sweep() -> str | None:
    """Return the name of the sweep; None outside a sweep."""
    return _name
