"""What each clip is told: prompts and options, as text."""
