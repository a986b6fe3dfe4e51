"""A row of a LoRA stack with strengths that are known to work."""

import folder_paths
from comfy_api.latest import io

from ..svi_core.systems.lora_presets import LORA_PRESETS, lora_preset
from .bridge.schemas import svi_schema
from .lora import NONE, LoraRow, LoraRows


class SVILoraPreset(io.ComfyNode):
    """Add one LoRA (or one high / low pair) to a stack at strengths chosen by what it is for."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        files = folder_paths.get_filename_list("loras")
        return svi_schema(
            node_id="SVILoraPreset",
            display_name="SVI LoRA Preset",
            description="One row of a LoRA stack, at strengths known to work for what the LoRA is for. Use SVI LoRA instead to "
            "type strengths; rows of both kinds can be chained.",
            search_aliases=["lora strength", "lightx2v", "lightning", "distilled", "slow motion"],
            inputs=[
                io.Combo.Input(
                    "preset",
                    options=list(LORA_PRESETS),
                    tooltip="What the LoRA is for; the numbers are its strengths on the high-noise (or only) model and on the "
                    "low-noise expert. Distilled at full strength on the high-noise expert slows motion down.",
                ),
                io.Combo.Input("lora", options=[NONE, *files], tooltip="LoRA of the model, or of the high-noise expert."),
                io.Combo.Input(
                    "lora_low_noise",
                    display_name="low-noise LoRA",
                    options=[NONE, *files],
                    tooltip="LoRA of the low-noise expert (Wan 2.2); none for a model without experts.",
                ),
                LoraRows.Input("loras", optional=True, tooltip="The rows before this one; all are added up."),
            ],
            outputs=[LoraRows.Output("stack", display_name="loras", tooltip="For the next row, or for SVI LoRA Stack.")],
        )

    @classmethod
    def execute(cls, preset, lora, lora_low_noise, loras=()) -> io.NodeOutput:
        return io.NodeOutput((*(loras or ()), preset_row(preset, lora, lora_low_noise)))


def preset_row(preset: str, lora: str, lora_low_noise: str) -> LoraRow:
    """Return the row that the widgets of SVI LoRA Preset describe.

    Raises:
        ValueError: unknown preset.
    """
    chosen = lora_preset(preset)
    return LoraRow(lora, chosen.high, lora_low_noise, chosen.low)
