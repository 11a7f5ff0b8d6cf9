"""Records as a tidy data frame, and the axes by which tables group it."""
