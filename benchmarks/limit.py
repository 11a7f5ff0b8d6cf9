"""A lower limit of the time of a run: the matrix products of the frozen linear layers on the real tokens alone."""

import time

import numpy as np
import torch

WIDTH, LAYERS = 384, 6
"""minilm: d x d projections (four) and d x 4d feed-forward (two), in each layer."""


def flops(lengths: np.ndarray, *, train: bool) -> float:
    """Return the floating-point operations of the frozen linear layers for one pass over sentences of these lengths.

    Forward is `2 m n` per token and `m x n` matrix. Backward is the same, for the gradients of the activations, except
    at the first layer's query, key and value, because nothing trains before them. In the last layer only keys and
    values are computed for all tokens; the queries, and everything after attention, for first tokens only. Attention's
    own products, which grow with the squared length of a sentence, are not counted.
    """
    square, tokens = WIDTH * WIDTH, int(lengths.sum())
    forward = 2 * square * (tokens * (12 * (LAYERS - 1) + 2) + len(lengths) * 10)
    return float(forward + (forward - 2 * square * 3 * tokens if train else 0))


def gemm_rate(*, rows: int = 448, rounds: int = 30) -> float:
    """Return the median floating-point operations per second of the products of a layer on `rows` tokens."""
    x, wide = torch.randn(rows, WIDTH), torch.randn(rows, 4 * WIDTH)
    weights = [torch.randn(WIDTH, WIDTH)] * 4 + [torch.randn(4 * WIDTH, WIDTH), torch.randn(WIDTH, 4 * WIDTH)]
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        for weight in weights:
            (wide if weight.shape[1] == 4 * WIDTH else x) @ weight.T
        seconds.append(time.perf_counter() - start)
    return 2 * rows * 12 * WIDTH * WIDTH / float(np.median(seconds))
