"""Strengths that are known to work, by what a LoRA is for.

Source: docs/METHOD.md, 4.5 (the authors' tips: LightX2V 0.5 to 0.6 on the high-noise expert, 1.0 on the low; users': a Wan 2.1
LightX2V at 1.5 on both). SVI itself is trained and released at 1.
"""

LORA_PRESETS = {  # strengths for the high-noise (or only) and for the low-noise expert
    "SVI or style, as trained: 1 and 1": (1.0, 1.0),
    "distilled, with motion: 0.6 and 1": (0.6, 1.0),
    "distilled, more motion: 0.5 and 1": (0.5, 1.0),
    "distilled, as trained: 1 and 1": (1.0, 1.0),
    "distilled for Wan 2.1, on Wan 2.2: 1.5 and 1.5": (1.5, 1.5),
}


def lora_preset(name: str) -> tuple[float, float]:
    """Return the strengths of the preset called `name`.

    Raises:
        ValueError: unknown name.
    """
    if name not in LORA_PRESETS:
        raise ValueError(f"preset is {name!r}: use one of the presets {', '.join(map(repr, LORA_PRESETS))}.")
    return LORA_PRESETS[name]
