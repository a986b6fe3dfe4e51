"""The models that are trained and used, loaded by ComfyUI's own code."""
