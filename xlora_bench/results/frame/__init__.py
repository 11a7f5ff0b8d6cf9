"""Records as one tidy data frame, and the keys by which it is grouped."""
