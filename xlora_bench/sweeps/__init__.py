"""How the runs of a table are chosen and run."""
