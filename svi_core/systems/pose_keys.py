"""Keys of SVI-Dance's pose encoder in LoRA files.

Source: docs/METHOD.md, 6.1 and 8.2.
"""

POSE_KEY = "dwpose_embedding."  # in every key of the encoder; what stands before it differs between files


def is_pose_key(key: str) -> bool:
    """Whether `key` of a LoRA file belongs to a pose encoder."""
    return POSE_KEY in key
