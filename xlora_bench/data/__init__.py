"""Data sets: tasks, sources of rows, tokens, batches and metrics."""
