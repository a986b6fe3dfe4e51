"""Look at a video: drift, measures of single frames, filmstrips, and plots."""
