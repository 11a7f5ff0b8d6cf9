"""Decompositions of weights (SVD, QR, LDU) and their disk cache."""
