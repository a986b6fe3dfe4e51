"""Further conditions that clips follow, besides text and image: the one interface for audio, pose, and whatever comes.

The paper injects conditions in two ways: spatially, added to the patch tokens (Dance), and as embeddings, by cross-attention
(Talk). Either way a control patches a clone of the model for one clip, with what belongs to that clip's place on the
timeline. The loop knows nothing more of it, so another control is another file.

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
    """One condition, for all clips of a run.

    Attributes:
        condition: its kind; a layout may ask for one.
        sound: what is heard with the video, or None.
        frame_rate: frames per second at which the condition moves, which the video then has too; None for the layout's.
        num_extra_passes: forward passes of the model that it adds to each step.
        num_frames: new frames after which the video ends with the condition; 0 if it does not end the video.
    """

    condition: Condition
    sound: SoundTrack | None
    frame_rate: float | None
    num_extra_passes: int
    num_frames: int

    def check(self, model, layout: Layout, width: int, height: int) -> None:
        """Refuse a model, layout or frame size (pixels) that the condition does not fit, before the first step.

        Raises:
            ValueError: naming what does not fit and the fix.
        """

    def determinants(self, request: ClipRequest) -> object:
        """Return everything of this condition that the clip depends on, for its key."""

    def patched(self, model, request: ClipRequest, samples: torch.Tensor):
        """Return a clone of `model` that follows the condition in the clip of `request`.

        Args:
            samples: the clip's empty latent [1, 16, F, h, w]; tells sizes only.
        """


def frame_rate_of(layout: Layout, controls: Sequence[Control]) -> float:
    """Return the frames per second of a run: its controls', else its layout's.

    Raises:
        ValueError: the controls move at different rates.
    """
    rates = sorted({control.frame_rate for control in controls} - {None})
    if len(rates) > 1:
        raise ValueError(
            f"the controls move at {' and '.join(f'{rate:g}' for rate in rates)} frames per second, a video has one rate: "
            "bring the pose video to the sound's 25."
        )
    return rates[0] if rates else layout.frame_rate


def earliest_end(max_frames: int, num_start_frames: int, controls: Sequence[Control]) -> int:
    """Return the final length of a video in frames, 0 for no limit: `max_frames`, or where a control ends before.

    Args:
        num_start_frames: of the video that is continued, 0 for none.
    """
    ends = [max_frames, *(control.num_frames and num_start_frames + control.num_frames for control in controls)]
    return min((end for end in ends if end), default=0)


def require_condition(layout: Layout, controls: Sequence[Control]) -> None:
    """Refuse a layout whose clips follow what no control gives.

    Raises:
        ValueError: naming the node to connect.
    """
    if layout.condition is not None and all(control.condition is not layout.condition for control in controls):
        raise ValueError(
            f"layout {layout.name!r} follows a {layout.condition.value}, but control brings none: connect "
            f"{_NODES[layout.condition]} to control, or choose another layout."
        )
