"""Adapted layers and the operations that they use."""
