"""Sweeps: expand the grid, order the runs, launch them, report progress."""
