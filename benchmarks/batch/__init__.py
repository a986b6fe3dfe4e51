"""What `python -m batch run` adds to each story, against the same graphs queued one after the other, on CPU."""
