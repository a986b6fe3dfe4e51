"""From clips on disk to encoded examples."""
