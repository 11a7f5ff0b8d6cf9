"""Budgets on equal footing: the rank (and targets) at which a variant costs what it may cost."""
