"""What a fork server imports for its workers: all that a cell needs. Nothing else imports this."""

import signal

from xlora_bench.quiet import quiet

signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, with which the server ends
quiet()

import xlora_bench.train  # noqa: E402, F401 - its imports talk
