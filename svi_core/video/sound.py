"""The sound of a run: samples from a node, stored as one file in the run folder and heard from the first new frame on.

It is encoded once, as AAC, so that refreshing the growing video only copies it. Its name depends on its content, so that
another sound never replaces it.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ..files.atomic_file import staged
from ..files.checked_file import is_unchanged, write_hash
from ..files.fingerprint import fingerprint
from .ffmpeg import ffmpeg_writing
from .source_video import open_media
from .video_file import Sound

_KBITS_PER_CHANNEL = 96
_MAX_CHANNELS = 8
_JOINED_RATE = 48_000  # samples per second of two sounds that follow each other
_JOINED_LAYOUT = "aformat=channel_layouts=stereo"


@dataclass(frozen=True)
class SoundTrack:
    """A sound in memory.

    Attributes:
        waveform: [channels, samples] in [-1, 1].
        sample_rate: samples per second.

    Raises:
        ValueError: there are no samples, or they are no sound.
    """

    waveform: torch.Tensor
    sample_rate: int

    def __post_init__(self):
        if self.waveform.ndim != 2 or not 1 <= self.waveform.shape[0] <= _MAX_CHANNELS or not self.waveform.shape[1]:
            raise ValueError(
                f"the sound has shape {list(self.waveform.shape)}, but one sound of 1 to {_MAX_CHANNELS} channels [channels, "
                "samples] is needed: load a file that has sound in it."
            )
        if self.sample_rate < 1:
            raise ValueError(f"the sound has {self.sample_rate} samples per second: load it again, with Load Audio.")
        if not bool(torch.isfinite(self.waveform).all()):
            raise ValueError("the sound has samples that are NaN or infinite: check the node that made it.")

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.waveform.shape[1] / self.sample_rate

    @functools.cached_property
    def key(self) -> str:
        """A hash of the samples and their rate."""
        return fingerprint("sound", self.waveform, self.sample_rate)

    def between(self, begin: float, end: float) -> torch.Tensor:
        """Return the samples [channels, n] from `begin` to `end` in seconds, fewer at the ends of the sound."""
        first, last = (max(0, round(second * self.sample_rate)) for second in (begin, end))
        return self.waveform[:, first:last]

    def kept_in(self, folder: Path) -> Sound:
        """Return this sound as a file in `folder`; write the file unless it exists undamaged.

        Raises:
            OSError: it could not be written.
        """
        path = folder / f"sound-{self.key[:16]}.m4a"
        if not is_unchanged(path):
            channels = self.waveform.shape[0]
            raw = ["-f", "f32le", "-ar", self.sample_rate, "-ac", channels, "-i", "-"]
            _encode(path, [*raw, "-b:a", f"{channels * _KBITS_PER_CHANNEL}k"], self.waveform)
        return Sound(path, "aac", self.seconds)


def sound_seconds(path: Path) -> float:
    """Return how long the first sound in the file `path` is, by decoding it as ComfyUI's Load Audio does.

    Raises:
        OSError: it has no sound that can be read.
    """
    with open_media(path) as container:
        stream = next(iter(container.streams.audio), None)
        num_samples = sum(frame.samples for frame in container.decode(stream)) if stream else 0
        if stream is None or not num_samples:
            raise OSError(f"{path} has no sound that can be read: choose another file.")
        return num_samples / stream.codec_context.sample_rate


def heard_until(seconds: float, source: str, name: str) -> str:
    """Return a graph of ffmpeg's filters: the sound `source` as it is heard from 0 to `seconds` under `name`, else silence.

    What lies behind `seconds` is cut off first, so that a damaged time stamp cannot ask for days of silence. ffmpeg fails where
    nothing is left, so the rest is mixed into silence.
    """
    return (
        f"[{source}]atrim=end={seconds:.6f},aresample={_JOINED_RATE}:async=1:first_pts=0,{_JOINED_LAYOUT}[{name}-sound];"
        f"anullsrc=r={_JOINED_RATE}:cl=stereo,atrim=end={seconds:.6f}[{name}-silence];"
        f"[{name}-silence][{name}-sound]amix=duration=first:normalize=0[{name}]"
    )


def sound_after(first: Sound | None, first_seconds: float, second: Sound) -> Sound:
    """Return `second` delayed by `first_seconds`, which `first` or silence fills, as a file beside that of `second`.

    Raises:
        OSError: it could not be written.
    """
    before = first and (first.path.name, first.path.stat().st_size, first.seconds, first.late)
    path = second.path.with_name(f"{second.path.stem}-after-{fingerprint(before, first_seconds)[:16]}.m4a")
    if not is_unchanged(path):
        silence = ["-f", "lavfi", "-i", f"anullsrc=r={_JOINED_RATE}:cl=stereo"]
        shape = f"aresample={_JOINED_RATE},{_JOINED_LAYOUT}"
        graph = f"{heard_until(first_seconds, '0:a:0', 'a')};[1:a:0]{shape}[b];[a][b]concat=n=2:v=0:a=1[out]"
        inputs = [*(first.input if first else silence), "-i", second.path]
        _encode(path, [*inputs, "-filter_complex", graph, "-map", "[out]", "-b:a", f"{2 * _KBITS_PER_CHANNEL}k"])
    return replace(second, path=path, seconds=first_seconds + second.seconds)


def _encode(path: Path, arguments: Sequence[object], waveform: torch.Tensor | None = None) -> None:
    """Encode `path` as AAC; `waveform` [channels, samples] goes to ffmpeg's standard input as interleaved floats."""
    with staged(path) as staging, ffmpeg_writing(staging, [*arguments, "-c:a", "aac"], path) as write:
        for part in waveform.split(1 << 20, dim=1) if waveform is not None else ():
            write(part.T.contiguous().float().cpu().numpy().astype("<f4").tobytes())
    write_hash(path)
