"""The conditioning of a clip: anchor, motion, padding, speech, and poses."""
