"""Flow matching: noise levels, velocities, and steps."""
