"""Translate between ComfyUI and svi_core."""
