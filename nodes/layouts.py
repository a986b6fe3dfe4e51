"""The choice of the SVI system: how clips are conditioned and joined."""

from comfy_api.latest import io

from ..svi_core.geometry import TRAINED_NUM_FRAMES
from ..svi_core.layouts import LAYOUTS, make_layout
from .validation import complaint

CATEGORY = "SVI"
LayoutType = io.Custom("SVI_LAYOUT")


class SVILayout(io.ComfyNode):
    """Choose how clips are conditioned and joined."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SVILayout",
            display_name="SVI Layout",
            category=CATEGORY,
            description="Which SVI system the LoRA belongs to. Without this node SVI Generate uses 2.0 Pro with 81 frames.",
            search_aliases=["stable video infinity", "svi shot", "svi film", "svi pro"],
            inputs=[
                io.Combo.Input(
                    "variant",
                    options=list(LAYOUTS),
                    default="2.0 Pro",
                    tooltip="2.0 Pro: latents, 4 motion frames. 2.0 and Shot: 1 motion frame, padded with the "
                    "anchor. Film: 5 motion frames, padded with grey. Talk: as Shot, with a sound, 25 frames a second.",
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
                    "takes 4, 8 or 12.",
                ),
            ],
            outputs=[LayoutType.Output("layout", tooltip="For layout of SVI Generate.")],
        )

    @classmethod
    def validate_inputs(cls, variant=None, num_frames=None, num_motion_frames=None) -> bool | str:
        return complaint(make_layout, variant, num_frames, num_motion_frames)

    @classmethod
    def execute(cls, variant, num_frames, num_motion_frames) -> io.NodeOutput:
        return io.NodeOutput(make_layout(variant, num_frames, num_motion_frames))
