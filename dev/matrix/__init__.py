"""The compatibility matrix: which tests pass on which ComfyUI and which front end; `python -m dev.matrix` runs it."""
