"""What a fork server imports for its workers: all that a run needs. Nothing else imports this; Linux only."""

import ctypes
import signal

from xlora_bench.system.log_levels import set_log_levels

PR_SET_PDEATHSIG = 1
"""Of Linux's `prctl.h`."""

signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent
ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # it ends with the parent also while it imports
set_log_levels()

import xlora_bench.training.train  # noqa: E402, F401 - its imports talk
