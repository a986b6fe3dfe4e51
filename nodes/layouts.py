"""The choice of the SVI system: how clips are conditioned and joined."""

from comfy_api.latest import io

from ..svi_core.geometry import TRAINED_NUM_FRAMES, num_latent_slots
from ..svi_core.systems.layouts import LAYOUTS, Layout, make_layout
from ..svi_core.systems.lora_variant import AUTO, AutoLayout
from ..svi_core.systems.variants import settings_text
from .bridge.schemas import svi_schema
from .bridge.validation import complaint

LayoutType = io.Custom("SVI_LAYOUT")


class SVILayout(io.ComfyNode):
    """Choose how clips are conditioned and joined."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return svi_schema(
            node_id="SVILayout",
            display_name="SVI Layout",
            description="Which SVI system the LoRA belongs to. Without this node SVI Generate uses 2.0 Pro with 81 frames. A "
            "LoRA that was trained for another system stops the run before its first step.",
            search_aliases=["svi shot", "svi film", "svi pro", "variant", "recommended settings"],
            inputs=[
                io.Combo.Input(
                    "variant",
                    options=[*LAYOUTS, AUTO],
                    default="2.0 Pro",
                    tooltip="The system of the LoRA; this node's help compares them, its second output shows the settings "
                    "that its authors use. auto: as the LoRA's header or file name says (put it on with SVI LoRA Stack).",
                ),
                io.Int.Input(
                    "num_frames",
                    default=TRAINED_NUM_FRAMES,
                    min=5,
                    max=1001,
                    step=4,
                    tooltip="Frames of each clip, 4n + 1. SVI is trained on 81 only; more fades the colours.",
                ),
                io.Int.Input(
                    "num_motion_frames",
                    default=0,
                    min=0,
                    max=80,
                    tooltip="Frames of the clip before that carry motion. 0: as the variant was trained. 2.0 Pro "
                    "takes 4, 8 or 12; systems that hand over frames 1, 5, 9.",
                ),
                io.Boolean.Input(
                    "cut_to_8_bits",
                    default=False,
                    optional=True,
                    advanced=True,
                    tooltip="Cut motion frames to 8 bits before they are encoded again, as the released code of SVI 1.0 does. "
                    "Not for 2.0 Pro, which hands over latents.",
                ),
            ],
            outputs=[
                LayoutType.Output("layout", tooltip="For layout of SVI Generate."),
                io.String.Output(
                    "settings", tooltip="What the authors use with it, as Markdown; show it with Preview as Text."
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, variant=None, num_frames=None, num_motion_frames=None, cut_to_8_bits=False) -> bool | str:
        return complaint(ask_layout, variant, num_frames, num_motion_frames, cut_to_8_bits)

    @classmethod
    def execute(cls, variant, num_frames, num_motion_frames, cut_to_8_bits=False) -> io.NodeOutput:
        layout = ask_layout(variant, num_frames, num_motion_frames, cut_to_8_bits)
        told = settings_text(layout) if isinstance(layout, Layout) else "The LoRA decides when SVI Generate starts.\n"
        return io.NodeOutput(layout, told)


def ask_layout(variant: str, num_frames: int, num_motion_frames: int, cut_to_8_bits: bool) -> Layout | AutoLayout:
    """Return the layout that the widgets of SVI Layout describe, or what is known of it where the LoRA decides.

    Raises:
        ValueError: as :func:`make_layout`.
    """
    if variant != AUTO:
        return make_layout(variant, num_frames, num_motion_frames, cut_to_8_bits)
    num_latent_slots(num_frames)
    return AutoLayout(num_frames, num_motion_frames, cut_to_8_bits)
