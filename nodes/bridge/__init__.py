"""The translators between ComfyUI and svi_core."""
