"""Clips: the request of each, the chain of them, and the video that grows from it."""
