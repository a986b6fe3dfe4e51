"""A stand-in for the model side of the loop: clips whose latents and frames are known in advance."""

import torch

from svi_core.clips.chain import Clip, make_clip
from svi_core.clips.clip_plan import ClipRequest
from svi_core.geometry import num_pixel_frames
from svi_core.systems.layouts import Layout


class FakeMaker:
    """Latent slot values tell clip and seed; frame k of clip i shows moment k + i * (num_frames - overlap), as grey."""

    def __init__(self, layout: Layout, settings: str = "", height: int = 16, width: int = 16):
        self.layout = layout
        self.settings = settings
        self.size = (height, width)
        self.begun: list[int] = []
        self.sampled: list[int] = []
        self.nan_at: int | None = None

    def begin(self, request: ClipRequest) -> None:
        self.begun.append(request.index)

    def determinants(self, request: ClipRequest) -> object:
        return (self.settings, request.spec.prompt, request.spec.cfg, request.seed, request.layout)

    def sample(self, request: ClipRequest, previous: Clip | None) -> torch.Tensor:
        self.sampled.append(request.index)
        latent = torch.full((1, 16, request.layout.num_slots, 2, 2), float(request.seed))
        latent[:, 0] = request.index
        latent[:, 1] = 0.0 if previous is None else previous.latent[:, 1, :1] + 1
        if request.index == self.nan_at:
            latent[0, 3, 0, 0, 0] = float("nan")
        return latent

    def measures(self, request: ClipRequest) -> dict[str, float]:
        return {"num_steps": 4, "num_passes": 2}

    def decode(self, latent: torch.Tensor):
        index = int(latent[0, 0, 0, 0, 0])
        step = self.layout.num_frames - self.layout.overlap
        moments = torch.arange(num_pixel_frames(latent.shape[2])) + index * step
        frames = (moments.float() % 251 / 255).reshape(-1, 1, 1, 1).expand(-1, *self.size, 3)
        yield frames[:1]
        for start in range(1, len(frames), 8):
            yield frames[start : start + 8]


def generate_clips(plan, maker, store, start=None):
    """Yield the clips of `plan`, made one after the other as a run makes them, without a video."""
    clip, request = None, plan.request(0)
    while request is not None:
        clip = make_clip(plan, maker, store, request, clip, start)
        yield clip
        request = plan.following(request)


def num_video_frames(num_clips: int, num_frames: int, overlap: int) -> int:
    """Return the frames of a video of clips that each share `overlap` frames with the one before."""
    return num_clips * (num_frames - overlap) + overlap
