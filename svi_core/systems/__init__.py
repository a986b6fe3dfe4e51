"""The SVI systems as data: layouts, variants, and the LoRA files that belong to them."""
