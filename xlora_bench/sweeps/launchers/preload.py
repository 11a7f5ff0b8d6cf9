"""Imports of the fork server for its workers. Linux only; no other module may import this one."""

import ctypes
import signal

from xlora_bench.system.log_levels import set_log_levels

PR_SET_PDEATHSIG = 1
"""Constant of Linux's `prctl.h`."""

signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # end with the parent, also during the imports
set_log_levels()

import xlora_bench.training.train  # noqa: E402, F401 - after `set_log_levels`: its imports print
