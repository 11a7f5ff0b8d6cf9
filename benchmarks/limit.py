"""The time that no layout, adapter or trainer can go below: the matrix products of the real tokens alone."""

import time

import numpy as np
import torch

WIDTH, LAYERS = 384, 6
"""minilm: d x d projections (four) and d x 4d feed-forward (two), in each layer."""


def flops(lengths: np.ndarray, *, train: bool) -> float:
    """Return the floating-point operations of the frozen linear layers for sentences of these lengths, once over.

    Forward `2 m n` per token and `m x n` matrix; backward the same for the gradients of the activations, but for the
    first layer's query, key and value, below which nothing trains. In the last layer only keys and values are of all
    tokens; the queries, and all after attention, are of first tokens.
    Attention's own products, which grow with a sentence's length squared, are left out: 3 % at 13 tokens.
    """
    square, tokens = WIDTH * WIDTH, int(lengths.sum())
    forward = 2 * square * (tokens * (12 * (LAYERS - 1) + 2) + len(lengths) * 10)
    return float(forward + (forward - 2 * square * 3 * tokens if train else 0))


def gemm_rate(*, rows: int = 448, rounds: int = 30) -> float:
    """Return the median floating-point operations per second of the layer's products on a packed batch of 32."""
    x, wide = torch.randn(rows, WIDTH), torch.randn(rows, 4 * WIDTH)
    weights = [torch.randn(WIDTH, WIDTH)] * 4 + [torch.randn(4 * WIDTH, WIDTH), torch.randn(WIDTH, 4 * WIDTH)]
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        for weight in weights:
            (wide if weight.shape[1] == 4 * WIDTH else x) @ weight.T
        seconds.append(time.perf_counter() - start)
    return 2 * rows * 12 * WIDTH * WIDTH / float(np.median(seconds))
