"""Reproduction: compare two runs, archive records, and retrain recorded runs."""
