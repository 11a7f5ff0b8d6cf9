"""Training: the LightningModule, optimizers, schedules and callbacks."""
