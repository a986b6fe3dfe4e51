"""Look at a video: drift, single frames, filmstrips, and plots."""
