"""Sigmas for distilled models: so many steps for each expert."""

from comfy_api.latest import io

from ..svi_core.flow.few_steps import MAX_STEPS, few_step_sigmas
from .bridge.schemas import svi_schema
from .bridge.validation import complaint


class SVIFewStepSigmas(io.ComfyNode):
    """Give each expert its own number of steps."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        steps = {"min": 1, "max": MAX_STEPS}
        return svi_schema(
            node_id="SVIFewStepSigmas",
            display_name="SVI Few-Step Sigmas",
            description="Noise levels for distilled LoRAs on Wan 2.2: you say how many steps each expert makes. Needs no model "
            "and no shift node.",
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
                    tooltip="5 as SVI is trained. More puts steps at higher noise (8 in the official 2.0 workflow).",
                ),
                io.Float.Input(
                    "boundary",
                    default=0.9,
                    min=0.01,
                    max=0.99,
                    step=0.005,
                    tooltip="Sigma at which the experts change over; connect the output of that name to SVI Generate.",
                ),
            ],
            outputs=[
                io.Sigmas.Output("sigmas", tooltip="All steps, for sigmas of SVI Generate."),
                io.Float.Output("boundary_out", display_name="boundary", tooltip="For boundary of SVI Generate."),
                io.Sigmas.Output("high_sigmas", tooltip="The high-noise expert's part, for a stock sampler."),
                io.Sigmas.Output("low_sigmas", tooltip="The low-noise expert's part, for a stock sampler."),
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
    """Return how many steps a clip takes, whatever its sigmas."""
    return steps_high_noise + steps_low_noise
