"""The tiny models: their shapes, their training, and their files."""
