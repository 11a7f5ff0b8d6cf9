"""Exit codes of the program; the first of these that applies: interrupted, refused, failed, collapsed, 0."""

INTERRUPTED = 130
"""Ctrl-C, as a shell reports it."""
REFUSED = 1
"""Wrong usage or a wrong option: nothing was trained because of it. Also a `verify` that found a difference."""
FAILED = 2
"""At least one run failed."""
COLLAPSED = 3
"""Every run collapsed: there is no number to report."""
