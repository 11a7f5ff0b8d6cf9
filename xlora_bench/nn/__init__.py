"""Adapted layers and the operations that they are made of."""
