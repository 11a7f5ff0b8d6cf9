"""Figures of results: score against cost."""
