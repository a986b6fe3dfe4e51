"""The interface of controls: conditions besides text and image, such as audio and poses.

The paper injects conditions spatially, added to the patch tokens (Dance), or as embeddings, by cross-attention (Talk). A
control does either by patching a clone of the model for one clip. The loop knows nothing else about it.

Source: SVI (arXiv:2510.09212), Sec. 4; docs/METHOD.md, 7 and 8.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from comfy_api.latest import io

from ...svi_core.clips.clip_plan import ClipRequest
from ...svi_core.systems.layouts import Condition, Layout
from ...svi_core.video.sound import SoundTrack

ControlType = io.Custom("SVI_CONTROL")
_NODES = {Condition.SOUND: "SVI Talk", Condition.POSE: "SVI Dance"}


class Control(Protocol):
    """One condition for all clips of a run.

    Attributes:
        condition: its kind; a layout may require one.
        sound: the video's sound track, or None.
        frame_rate: frames per second of the condition and so of the video; None for the layout's.
        num_extra_passes: forward passes that it adds to each step.
        num_frames: new frames after which the condition ends the video; 0 for never.
    """

    condition: Condition
    sound: SoundTrack | None
    frame_rate: float | None
    num_extra_passes: int
    num_frames: int

    def check(self, model, layout: Layout, width: int, height: int) -> None:
        """Raise ValueError for a model, layout or frame size (pixels) that the condition does not fit."""

    def determinants(self, request: ClipRequest) -> object:
        """Return what the clip's key must contain of this condition."""

    def patched(self, model, request: ClipRequest, samples: torch.Tensor):
        """Return a clone of `model` for the clip of `request`; `samples` is its empty latent [1, 16, F, h, w]."""


def frame_rate_of(layout: Layout, controls: Sequence[Control]) -> float:
    """Return the frames per second of a run: its controls', else its layout's; raise ValueError if controls differ."""
    rates = sorted({control.frame_rate for control in controls} - {None})
    if len(rates) > 1:
        raise ValueError(
            f"the controls have {' and '.join(f'{rate:g}' for rate in rates)} frames per second, but a video has one rate: "
            "convert the pose video to 25, the rate of the sound."
        )
    return rates[0] if rates else layout.frame_rate


def earliest_end(max_frames: int, num_start_frames: int, controls: Sequence[Control]) -> int:
    """Return the final length of a video in frames: `max_frames` or an earlier end of a control; 0 for no limit.

    Args:
        num_start_frames: length of the video to continue, 0 for none.
    """
    ends = [max_frames, *(control.num_frames and num_start_frames + control.num_frames for control in controls)]
    return min((end for end in ends if end), default=0)


def require_condition(layout: Layout, controls: Sequence[Control]) -> None:
    """Raise ValueError for a layout that requires a control which is not connected."""
    if layout.condition is not None and all(control.condition is not layout.condition for control in controls):
        raise ValueError(
            f"layout {layout.name!r} follows a {layout.condition.value}, but control has none: connect "
            f"{_NODES[layout.condition]} to control, or choose another layout."
        )
