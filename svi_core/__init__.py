"""The method of Stable Video Infinity in plain torch: no ComfyUI, no weights.

Source: Stable Video Infinity, arXiv:2510.09212, and its public code for what the paper leaves open.
"""
