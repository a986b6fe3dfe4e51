"""One training run: its parts, its loop, its folder, and what is seen of it."""
