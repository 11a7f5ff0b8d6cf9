"""Exceptions between processes: with their causes, and none that cannot be pickled."""

import itertools
import logging
import pickle
import traceback
from collections.abc import Sequence
from typing import Any

import cloudpickle
from hydra.core.utils import JobReturn, JobStatus

log = logging.getLogger(__name__)


def portable(error: BaseException) -> list[BaseException]:
    """Return `error` and its causes as picklable exceptions; the first one has the traceback as a note."""
    text = "".join(traceback.format_exception(error))
    causes: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None:
        causes.append(_portable(cause))
        cause = cause.__cause__
    causes[0].add_note(f"In a worker process:\n{text}")
    return causes


def chained(errors: Sequence[BaseException]) -> BaseException:
    """Return the first of `errors`, each caused by the next."""
    for error, cause in itertools.pairwise(errors):
        error.__cause__ = cause
    return errors[0]


def received(job_return: Any) -> Any:
    """Return the result of `run_in_worker`, with its error chained again; anything else as it is."""
    if isinstance(job_return, JobReturn) and job_return.status != JobStatus.COMPLETED:
        job_return.return_value = chained(job_return._return_value)
    return job_return


def _portable(error: BaseException) -> BaseException:
    try:
        copy: BaseException = pickle.loads(cloudpickle.dumps(error))
        if isinstance(copy, type(error)) and str(copy) == str(error):
            return copy
    except Exception:
        log.debug("an exception of type %s cannot be sent", type(error))
    return RuntimeError(f"{type(error).__name__}: {error}")
