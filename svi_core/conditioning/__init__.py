"""What a clip is conditioned on: anchor, motion, padding, speech, and poses."""
