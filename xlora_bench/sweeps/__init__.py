"""How the cells of a table are chosen and run."""
