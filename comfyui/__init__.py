"""A ComfyUI process, and its HTTP and websocket interface, for the batch command, the demo, the benchmarks and the tests."""
