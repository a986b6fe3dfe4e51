"""A row of a LoRA stack with proven strengths."""

from comfy_api.latest import io

from ..svi_core.systems.lora_presets import LORA_PRESETS, lora_preset
from .bridge.schemas import svi_schema
from .lora import LoraRow, row_inputs, rows_output


class SVILoraPreset(io.ComfyNode):
    """Add a LoRA, or a high / low pair, to a stack at the strengths for its purpose."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return svi_schema(
            node_id="SVILoraPreset",
            display_name="SVI LoRA Preset",
            description="One row of a LoRA stack, at proven strengths for its purpose. To type strengths use SVI LoRA; both "
            "kinds of rows can be chained.",
            category="models",
            search_aliases=["lora strength", "lightx2v", "lightning", "distilled", "slow motion"],
            inputs=[
                io.Combo.Input(
                    "preset",
                    options=list(LORA_PRESETS),
                    tooltip="The LoRA's purpose, with its strengths on the high-noise (or only) model and on the low-noise "
                    "expert. A distilled LoRA at full strength on the high-noise expert slows motion down.",
                ),
                *row_inputs(),
            ],
            outputs=[rows_output()],
        )

    @classmethod
    def execute(cls, preset, lora, lora_low_noise, loras=()) -> io.NodeOutput:
        return io.NodeOutput((*(loras or ()), preset_row(preset, lora, lora_low_noise)))


def preset_row(preset: str, lora: str, lora_low_noise: str) -> LoraRow:
    """Return the row that the widgets of SVI LoRA Preset describe.

    Raises:
        ValueError: unknown preset.
    """
    high, low = lora_preset(preset)
    return LoraRow(lora, high, lora_low_noise, low)
