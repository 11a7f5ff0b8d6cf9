"""Protocols: selection of the epoch, aggregation over seeds, and published tables."""
