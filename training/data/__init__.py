"""From clips on disk to encoded examples, in a cache."""
