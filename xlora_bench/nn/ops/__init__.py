"""Tensor operations as autograd functions: low-rank linear, attention, dropout."""
