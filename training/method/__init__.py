"""Error-Recycling Fine-Tuning: the training step, and what it works with."""
