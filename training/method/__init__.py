"""Error-Recycling Fine-Tuning: the training step and its parts."""
