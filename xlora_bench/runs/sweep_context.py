"""The sweep whose job this process runs: trackers group runs by it. It changes no number."""

_name: str | None = None


def enter_sweep(name: str) -> None:
    """Note that this process runs a job of the sweep called `name`."""
    global _name  # noqa: PLW0603 - Hydra calls the start and the end of a job from outside
    _name = name


def leave_sweep() -> None:
    """Note that the job has ended."""
    global _name  # noqa: PLW0603 - as above
    _name = None


def running_sweep() -> str | None:
    """Return the name of the sweep whose job this process runs; None outside a sweep."""
    return _name
