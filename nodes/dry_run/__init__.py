"""SVI Plan: read a queued graph without running it."""
