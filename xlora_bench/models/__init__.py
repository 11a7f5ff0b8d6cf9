"""Pretrained models and their task heads."""
