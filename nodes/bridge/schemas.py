"""What the schemas of our nodes share."""

from comfy_api.latest import io

from ...svi_core.geometry import TRAINED_NUM_FRAMES
from ...svi_core.schedule.spec import MAX_SEED

SUMMARY_KEY = "svi_summary"  # of a node's output for the front end: web/js/node_text.js shows it on the node


def svi_schema(
    node_id: str, display_name: str, description: str, search_aliases: list[str], category: str, **parts
) -> io.Schema:
    """Return the schema of a node in our part of the menu; `parts` are its inputs, outputs and flags."""
    aliases = ["stable video infinity", *search_aliases]
    return io.Schema(node_id, display_name, f"SVI/{category}", description=description, search_aliases=aliases, **parts)


def num_frames_input() -> io.Input:
    """Return the input for the length of a clip."""
    tooltip = "Frames of each clip, 4n + 1. SVI is trained on 81; longer clips fade."
    return io.Int.Input("num_frames", default=TRAINED_NUM_FRAMES, min=5, max=1001, step=4, tooltip=tooltip)


def seed_input(tooltip: str) -> io.Input:
    """Return the input for a seed, which stays the same from run to run unless the user decides otherwise."""
    fixed = io.ControlAfterGenerate.fixed
    return io.Int.Input("seed", default=0, min=0, max=MAX_SEED, control_after_generate=fixed, tooltip=tooltip)


def boundary_input(default: float, tooltip: str, advanced: bool | None = None) -> io.Input:
    """Return the input for the sigma at which Wan 2.2 switches experts."""
    limits = {"default": default, "min": 0.01, "max": 0.99, "step": 0.005}
    return io.Float.Input("boundary", tooltip=tooltip, advanced=advanced, **limits)


def prefix_input(default: str, tooltip: str) -> io.Input:
    """Return the input for a folder in ComfyUI's output folder."""
    return io.String.Input("filename_prefix", default=default, tooltip=tooltip)
