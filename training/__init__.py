"""Train SVI LoRAs on the Wan files of a ComfyUI: `python -m training.cache`, then `python -m training.erft`."""
