"""Training of one run: config to request, model and trainer, fit, record; budgets, callbacks, training loop."""
