"""Compare two runs, archive records, and train recorded runs again."""
