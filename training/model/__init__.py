"""The frozen model, the encoders and the LoRA on it. All ComfyUI code of training is called from here."""
