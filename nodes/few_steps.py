"""Sigmas for distilled models, with a step count per expert."""

from comfy_api.latest import io

from ..svi_core.flow.few_steps import FEW_STEPS_BOUNDARY, MAX_STEPS, few_step_sigmas
from .bridge.schemas import boundary_input, svi_schema
from .bridge.validation import complaint


class SVIFewStepSigmas(io.ComfyNode):
    """Make sigmas from the step count of each expert."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        steps = {"min": 1, "max": MAX_STEPS}
        return svi_schema(
            node_id="SVIFewStepSigmas",
            display_name="SVI Few-Step Sigmas",
            description="Sigmas for distilled LoRAs on Wan 2.2, from the number of steps of each expert. Needs no model and no "
            "shift node.",
            category="models",
            search_aliases=["lightx2v", "lightning", "4 steps", "split sigmas", "scheduler"],
            inputs=[
                io.Int.Input("steps_high_noise", default=2, tooltip="Steps of the high-noise expert: motion, layout.", **steps),
                io.Int.Input("steps_low_noise", default=2, tooltip="Steps of the low-noise expert: detail.", **steps),
                io.Float.Input(
                    "shift",
                    default=5.0,
                    min=0.01,
                    max=100.0,
                    step=0.1,
                    tooltip="5 as in SVI's training. More moves steps to higher noise (official 2.0 workflow: 8).",
                ),
                boundary_input(
                    FEW_STEPS_BOUNDARY,
                    "Sigma at which the low-noise expert takes over. Use the boundary output for SVI Generate.",
                ),
            ],
            outputs=[
                io.Sigmas.Output("sigmas", tooltip="All steps, for sigmas of SVI Generate."),
                io.Float.Output("boundary_out", display_name="boundary", tooltip="For boundary of SVI Generate."),
                io.Sigmas.Output("high_sigmas", tooltip="The high-noise part, for a stock sampler."),
                io.Sigmas.Output("low_sigmas", tooltip="The low-noise part, for a stock sampler."),
            ],
        )

    @classmethod
    def validate_inputs(cls, steps_high_noise=None, steps_low_noise=None, shift=None, boundary=None) -> bool | str:
        return complaint(few_step_sigmas, steps_high_noise, steps_low_noise, shift, boundary)

    @classmethod
    def execute(cls, steps_high_noise, steps_low_noise, shift, boundary) -> io.NodeOutput:
        sigmas = few_step_sigmas(steps_high_noise, steps_low_noise, shift, boundary)
        return io.NodeOutput(sigmas, boundary, sigmas[: steps_high_noise + 1], sigmas[steps_high_noise:])


def num_few_steps(steps_high_noise: int, steps_low_noise: int) -> int:
    """Return the steps of a clip."""
    return steps_high_noise + steps_low_noise
