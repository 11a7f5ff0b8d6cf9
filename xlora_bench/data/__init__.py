"""Data sets: what a task is, where its rows come from, how they become batches, how they are scored."""
