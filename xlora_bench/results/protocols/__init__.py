"""Protocols: which epoch is scored, how seeds are aggregated, and the published tables."""
