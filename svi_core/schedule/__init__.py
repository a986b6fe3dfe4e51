"""The schedule: prompts and options of each clip, as text."""
