"""LightningModule of a run, its optimizer and schedule, its evaluations, and its saved tensors."""
