"""Does error recycling stop drift? Chained clips of a small Wan model, with and without LoRAs trained by ERFT."""


class StudyError(ValueError):
    """What was asked for cannot be run; the message says why, and what would help."""
