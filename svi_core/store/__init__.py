"""The run folder: finished clips, their records, and what was made of them."""
