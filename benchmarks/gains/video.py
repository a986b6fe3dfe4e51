"""A clip's time with its video file written in line, and in the background while the next clip is sampled."""

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from svi_core.clips.chain import Clip
from svi_core.clips.clip_plan import ClipPlan, ClipRequest
from svi_core.clips.growing_video import GrowingVideo, make_video
from svi_core.schedule.text import parse_schedule
from svi_core.store.run_store import RunStore
from svi_core.systems.layouts import make_layout
from svi_core.video.video_file import read_frames

NUM_CLIPS = 3


class SleepingMaker:
    """Makes clips of a moving picture, and sleeps for the time of sampling."""

    def __init__(self, sizes):
        self.sizes = sizes
        self.began: list[float] = []
        picture = torch.rand(1, 3, 48, 83, generator=torch.Generator().manual_seed(0))
        size = (sizes.height + 40, sizes.width + 80)
        large = torch.nn.functional.interpolate(picture, size=size, mode="bicubic")
        self.picture = large[0].movedim(0, -1).clamp(0, 1)

    def begin(self, request: ClipRequest) -> None:
        """Do nothing."""

    def determinants(self, request: ClipRequest) -> object:
        """Nothing else determines a clip."""
        return request.seed

    def sample(self, request: ClipRequest, previous) -> torch.Tensor:
        """Sleep, then return an empty latent."""
        self.began.append(time.perf_counter())
        time.sleep(self.sizes.sampling_seconds)
        slots = (self.sizes.num_frames - 1) // 4 + 1
        return torch.zeros(1, 16, slots, self.sizes.height // 8, self.sizes.width // 8)

    def decode(self, latent: torch.Tensor) -> Iterator[torch.Tensor]:
        """Yield the frames in chunks as the VAE does: 1, then 8 at a time."""
        height, width = self.sizes.height, self.sizes.width
        for start in (0, *range(1, self.sizes.num_frames, 8)):
            places = range(start, min(start + 8, self.sizes.num_frames) if start else 1)
            yield torch.stack([self.picture[p // 4 : p // 4 + height, p // 2 : p // 2 + width] for p in places])

    def measures(self, request: ClipRequest) -> dict[str, float]:
        """Nothing to note."""
        return {}


class VideoInLine(GrowingVideo):
    """Waits for each file before the next clip begins."""

    def add(self, *arguments, **options) -> Clip:
        """Add a clip, wait for its file and return the clip."""
        clip = super().add(*arguments, **options)
        self.wait()
        return clip


def clip_seconds(sizes) -> tuple[Callable, Callable]:
    """Return the two ways; each returns (seconds from one clip's beginning to the next one's, frames of the video)."""

    def run(kind: type[GrowingVideo]) -> tuple[float, list[torch.Tensor]]:
        folder, maker = Path(tempfile.mkdtemp()), SleepingMaker(sizes)
        try:
            with RunStore(folder) as store:
                plan = ClipPlan(NUM_CLIPS, parse_schedule("a"), make_layout("2.0 Pro", num_frames=sizes.num_frames))
                path, _ = make_video(plan, maker, kind(store))
            frames = torch.from_numpy(np.stack(list(read_frames(path))))
        finally:
            shutil.rmtree(folder)
        return (maker.began[-1] - maker.began[0]) / (NUM_CLIPS - 1), [frames]

    return lambda: run(VideoInLine), lambda: run(GrowingVideo)
