"""SVI Plan: a dry run that estimates a video and its cost before any model loads."""

import time
from dataclasses import dataclass

import numpy as np
from comfy_api.latest import io, ui
from comfy_execution.graph_utils import ExecutionBlocker

from ...svi_core.dry_run.picture import draw_estimate, draw_message
from ...svi_core.dry_run.run_estimate import estimate_run
from ...svi_core.dry_run.text import estimate_summary, estimate_text
from ..bridge.clip_times import earlier_times
from ..bridge.schemas import SUMMARY_KEY, svi_schema
from ..look import as_image
from .read_graph import read_requested_run


class SVIPlan(io.ComfyNode):
    """Show what a run will do; start it only on request."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return svi_schema(
            node_id="SVIPlan",
            display_name="SVI Plan",
            description="A dry run: shows clips, frames, stored clips, time, memory, disk space and warnings before any model "
            "loads. Put it between SVI Generate and SVI Show Video.",
            category="generate",
            search_aliases=["dry run", "estimate", "preview", "how long"],
            inputs=[
                io.Video.Input("video", lazy=True, tooltip="From SVI Generate, which only runs when plan_only is off."),
                io.Boolean.Input(
                    "plan_only",
                    default=True,
                    tooltip="On: plan only; the video is not made. Off: make the video and pass it on.",
                ),
            ],
            outputs=[
                io.Video.Output("planned_video", display_name="video", tooltip="The finished video, if plan_only is off."),
                io.String.Output("plan", tooltip="The plan in Markdown, for Preview as Text."),
                io.Image.Output("picture", tooltip="The clips on a time axis."),
            ],
            hidden=[io.Hidden.prompt, io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def check_lazy_status(cls, plan_only, video=None) -> list[str]:
        return [] if plan_only or video is not None else ["video"]

    @classmethod
    def fingerprint_inputs(cls, plan_only=True, **_) -> float | str:
        """Plan on every run, since folder and disk change; with plan_only off, let ComfyUI cache the video."""
        return time.time() if plan_only else ""

    @classmethod
    def execute(cls, plan_only, video=None) -> io.NodeOutput:
        run = describe_run(cls.hidden.prompt, cls.hidden.unique_id, plan_only)
        passed_on = ExecutionBlocker(None) if plan_only else video
        shown = ui.PreviewText(run.text).as_dict() | {SUMMARY_KEY: (run.summary,)}
        return io.NodeOutput(passed_on, run.text, as_image(run.picture), ui=shown)


@dataclass(frozen=True)
class DescribedRun:
    """An estimate or an error: a summary and a full text in Markdown, and a picture [H, W, 3] uint8."""

    summary: str
    text: str
    picture: np.ndarray


def describe_run(prompt: dict, plan_id: str, plan_only: bool) -> DescribedRun:
    """Return the estimate of the run whose video enters the SVI Plan `plan_id`, or its error."""
    try:
        estimate = estimate_run(read_requested_run(prompt, plan_id, plan_only), earlier_times())
    except (ValueError, OSError) as error:
        text = f"This run cannot be planned: {error}\n"
        return DescribedRun(text, text, draw_message("This run cannot be planned", str(error)))
    return DescribedRun(estimate_summary(estimate), estimate_text(estimate), draw_estimate(estimate))
