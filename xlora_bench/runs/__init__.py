"""A run: its config hash, folder, record, seeds and provenance."""
