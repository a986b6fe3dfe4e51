"""The benchmarks as settings: how many videos of how many clips, how many prompts, and what else they follow.

Source: SVI (arXiv:2510.09212), Sec. 5 (lengths and metrics) and App. A (A.1: one prompt for each clip of 5 seconds, so 10 and
50; A.2: 152 and 14 videos, and 10 for each condition). App. A.2 also speaks of streams of 50 and 100 prompts, more than there
are clips; we follow A.1 and the released data. Rates: docs/METHOD.md 3.
"""

import math
from dataclasses import dataclass

FRAMES_PER_CLIP = 80  # that each clip adds, of the systems that the paper measures: 81 of which one is shared
PRODUCTION = "production"


@dataclass(frozen=True)
class Benchmark:
    """One benchmark.

    Attributes:
        name: of the table; the names of its stories begin with it.
        title: what it is, in a few words.
        seconds: length of a video.
        num_samples: videos, as in the paper.
        is_stream: a prompt for each clip, in place of one for all.
        follows: "", or the column of what the clips follow: "sound" or "pose".
    """

    name: str
    title: str
    seconds: int
    num_samples: int
    is_stream: bool = False
    follows: str = ""

    @property
    def frame_rate(self) -> int:
        """Frames per second: 25 for Talk and Dance, 16 for the others."""
        return 25 if self.follows else 16

    @property
    def num_clips(self) -> int:
        """The clips that a video of its length needs; the first has a frame more than the others add."""
        return math.ceil((self.seconds * self.frame_rate - 1) / FRAMES_PER_CLIP)


BENCHMARKS = {
    benchmark.name: benchmark
    for benchmark in (
        Benchmark("consistent-50s", "Consistent video, 50 s, one prompt", 50, 152),
        Benchmark("consistent-250s", "Consistent video, 250 s, one prompt", 250, 14),
        Benchmark("creative-50s", "Creative video, 50 s, a prompt stream", 50, 152, is_stream=True),
        Benchmark("creative-250s", "Creative video, 250 s, a prompt stream", 250, 14, is_stream=True),
        Benchmark("talk-300s", "Talk, 300 s, follows a sound", 300, 10, follows="sound"),
        Benchmark("dance-50s", "Dance, 50 s, follows a pose video", 50, 10, follows="pose"),
        Benchmark(PRODUCTION, "Production example, 15 s, three prompts", 15, 14, is_stream=True),
    )
}
OTHER = Benchmark("", "Other videos", 0, 0)


def benchmark_of(story: str) -> Benchmark:
    """Return the benchmark whose table a story is from, by its name; OTHER for all other stories."""
    return next((benchmark for name, benchmark in BENCHMARKS.items() if story.startswith(f"{name}-")), OTHER)
