"""Does error recycling stop drift? Chained clips of a small Wan model, with and without LoRAs trained by ERFT."""


class StudyError(ValueError):
    """The requested study cannot run; the message gives the reason and the fix."""
