"""The LightningModule of a run, its optimizer, its evaluations and what of it is saved."""
