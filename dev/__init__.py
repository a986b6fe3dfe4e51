"""Developer tools: the environment, a ComfyUI process, and the builders of shipped files."""
