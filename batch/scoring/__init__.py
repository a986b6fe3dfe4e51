"""Measures of finished videos: our own always, others by their packages and models; what is absent is named."""
