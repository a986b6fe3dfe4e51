"""Does error recycling stop drift? Chained clips of a small Wan model, with and without LoRAs trained by ERFT."""
