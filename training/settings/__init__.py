"""The settings of a training run: their meaning, their reader, their checks."""
