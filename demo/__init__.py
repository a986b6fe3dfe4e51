"""The demo: a tiny world, tiny Wan models trained on it, and one command that makes a long video of it in ComfyUI."""
