"""The page of a results folder: one HTML file with answer, table, charts and runs; it needs no network."""
