"""Clips: what is asked of each, the chain of them, and the video that grows from it."""
