"""Cut the frames that a clip gives to a video, and blend those that it shares with the clip before; see `seams`."""

from collections.abc import Iterator

import torch

from .seams import Seam, Showing


def blend_weights(seam: Seam, num_frames: int) -> torch.Tensor:
    """Return the later clip's share [num_frames] of each blended frame, strictly between 0 and 1 and rising.

    LINEAR is k / (n + 1), k = 1 .. n; EASED is its smoothstep 3 s^2 - 2 s^3.
    """
    steps = torch.arange(1, num_frames + 1, dtype=torch.float32) / (num_frames + 1)
    return steps * steps * (3 - 2 * steps) if seam is Seam.EASED else steps


def cut_frames(chunks: Iterator[torch.Tensor], showing: Showing, before: torch.Tensor | None = None) -> Iterator[torch.Tensor]:
    """Yield the frames of a clip's `chunks` [t, H, W, 3] that `showing` selects.

    Args:
        before: the last ``showing.num_blended`` frames [n, H, W, 3] of the clip before, if frames are blended.
    """
    weights = blend_weights(showing.seam, showing.num_blended).view(-1, 1, 1, 1)
    position, done, held = 0, 0, []
    for chunk in chunks:
        kept = chunk[max(0, showing.frames.start - position) : max(0, showing.frames.stop - position)]
        position += len(chunk)
        if not len(kept):
            continue
        num_mixed = max(0, min(len(kept), showing.num_blended - done))
        if num_mixed:
            assert before is not None, showing
            share = weights[done : done + num_mixed].to(kept)
            mixed = torch.lerp(before[done : done + num_mixed].to(kept), kept[:num_mixed], share)
            kept = torch.cat([mixed, kept[num_mixed:]])
        done += len(kept)
        held = [kept[-1:]] * showing.hold
        yield kept
    yield from held
