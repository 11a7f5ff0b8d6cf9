"""The process of one rank of a run on several devices: `python -m xlora_bench.training.rank`, with its job on stdin."""

import json
import os
import signal
import sys
import threading
import traceback
from dataclasses import replace
from pathlib import Path

from xlora_bench.runs.run import Run
from xlora_bench.system.io import write_atomically
from xlora_bench.system.log_levels import set_log_levels
from xlora_bench.training.rank_processes import failure_path


def main() -> None:
    """Do the job that stdin has; leave the error if there is one, and exit with 1."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started this one handles Ctrl-C, and ends it
    job = json.loads(sys.stdin.readline())
    threading.Thread(target=end_with_parent, daemon=True).start()
    run = replace(Run(**{**job["run"], "folder": Path(job["run"]["folder"])}), number=job["number"])
    try:
        set_log_levels()
        from xlora_bench.training.rank_work import work  # noqa: PLC0415 - after `set_log_levels`: its imports print, too

        work(run, job)
    except BaseException as error:
        if os.environ.get("HYDRA_FULL_ERROR"):
            traceback.print_exc()
        if run.attempt.is_dir():
            write_atomically(failure_path(run, job["rank"]), f"{type(error).__name__}: {error}")
        sys.stderr.flush()
        os._exit(1)  # without a goodbye to the other ranks, which may never answer


def end_with_parent() -> None:
    """End this process when its stdin is closed: the process that started it is gone."""
    while os.read(0, 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
