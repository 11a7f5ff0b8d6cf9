"""Budgets: solve for the rank (and targets) at which a variant has a given parameter count or FLOPs per step."""
