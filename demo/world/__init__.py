"""The tiny world: short captioned scenes that a small video model can learn to predict."""
