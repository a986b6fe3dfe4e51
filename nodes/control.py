"""Further conditions that clips follow, besides text and image: the one interface for audio, pose, and whatever comes.

The paper injects conditions in two ways: spatially, added to the patch tokens (Dance), and as embeddings, by cross-attention
(Talk). Either way a control patches a clone of the model for one clip, with what belongs to that clip's place on the
timeline. The loop knows nothing more of it, so another control is another file.

Source: SVI (arXiv:2510.09212), Sec. 4; SVI_SPEC D.
"""

from typing import Protocol

import torch
from comfy_api.latest import io

from ..svi_core.clips import ClipRequest
from ..svi_core.layouts import Layout
from ..svi_core.video_file import Sound

ControlType = io.Custom("SVI_CONTROL")


class Control(Protocol):
    """One condition, for all clips of a run.

    Attributes:
        sound: what is heard with the video, or None.
    """

    sound: Sound | None

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
