"""Choose the SVI system, which decides how clips are conditioned and joined."""

from comfy_api.latest import io

from ..svi_core.geometry import num_latent_slots
from ..svi_core.systems.layouts import LAYOUTS, Layout, make_layout
from ..svi_core.systems.lora_variant import AUTO, AutoLayout
from ..svi_core.systems.variants import settings_text
from .bridge.schemas import num_frames_input, svi_schema
from .bridge.validation import complaint

LayoutType = io.Custom("SVI_LAYOUT")


class SVILayout(io.ComfyNode):
    """Choose how clips are conditioned and joined."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return svi_schema(
            node_id="SVILayout",
            display_name="SVI Layout",
            description="Choose the SVI system of the LoRA. Without this node SVI Generate uses 2.0 Pro with 81 frames. A LoRA "
            "for another system stops the run before its first step.",
            category="models",
            search_aliases=["svi shot", "svi film", "svi pro", "variant", "recommended settings"],
            inputs=[
                io.Combo.Input(
                    "variant",
                    options=[*LAYOUTS, AUTO],
                    default="2.0 Pro",
                    tooltip="The SVI system that the LoRA was trained for; the help page compares them. auto: read it from the "
                    "LoRA's header or file name (needs SVI LoRA Stack).",
                ),
                num_frames_input(),
                io.Int.Input(
                    "num_motion_frames",
                    default=0,
                    min=0,
                    max=80,
                    tooltip="Frames of the previous clip that carry motion. 0: the variant's own number. 2.0 Pro: 4, 8 or 12. "
                    "Others: 1, 5, 9.",
                ),
                io.Boolean.Input(
                    "cut_to_8_bits",
                    default=False,
                    optional=True,
                    advanced=True,
                    tooltip="Cut motion frames to 8 bits before re-encoding, as the released SVI 1.0 code does. Not for 2.0 "
                    "Pro.",
                ),
            ],
            outputs=[
                LayoutType.Output("layout", tooltip="For layout of SVI Generate."),
                io.String.Output("settings", tooltip="The authors' settings in Markdown, for Preview as Text."),
            ],
        )

    @classmethod
    def validate_inputs(cls, variant=None, num_frames=None, num_motion_frames=None, cut_to_8_bits=False) -> bool | str:
        return complaint(ask_layout, variant, num_frames, num_motion_frames, cut_to_8_bits)

    @classmethod
    def execute(cls, variant, num_frames, num_motion_frames, cut_to_8_bits=False) -> io.NodeOutput:
        layout = ask_layout(variant, num_frames, num_motion_frames, cut_to_8_bits)
        settings = settings_text(layout) if isinstance(layout, Layout) else "The LoRA decides when SVI Generate starts.\n"
        return io.NodeOutput(layout, settings)


def ask_layout(variant: str, num_frames: int, num_motion_frames: int, cut_to_8_bits: bool) -> Layout | AutoLayout:
    """Return the layout that the widgets of SVI Layout describe; with auto, the LoRA completes it.

    Raises:
        ValueError: as :func:`make_layout`.
    """
    if variant != AUTO:
        return make_layout(variant, num_frames, num_motion_frames, cut_to_8_bits)
    num_latent_slots(num_frames)
    return AutoLayout(num_frames, num_motion_frames, cut_to_8_bits)
