"""The sound of a training clip, its own or that of a file next to it, prepared like speech for generation.

Source: docs/METHOD.md, 7.1 (mono, 16 kHz, -23 LUFS).
"""

from pathlib import Path

import av
import numpy as np
import torch
from torch import Tensor

from svi_core.conditioning.talk import prepared_speech
from svi_core.video.shown_frames import fault_in_times


def require_sound(path: Path) -> None:
    """Refuse a file without sound.

    Raises:
        ValueError: the message is the reason.
    """
    try:
        with av.open(str(path), metadata_errors="replace") as container:
            if container.streams.audio:
                return
    except (av.error.FFmpegError, OSError) as error:
        raise ValueError(f"{path.name} cannot be read as a sound ({error.strerror})") from error
    raise ValueError(f"has no sound, which Talk needs: put {path.stem}.wav next to it, or use a file with sound")


def read_speech(path: Path) -> Tensor:
    """Return the sound in `path` as the speech encoder takes it, [n] at 16 kHz, from the time of the first picture on.

    Raises:
        ValueError: the sound cannot be read to its end, or is shorter than the 0.4 s over which loudness is measured.
    """
    try:
        with av.open(str(path), metadata_errors="replace") as container:
            waveform, rate, late = _decoded(container)
    except (av.error.FFmpegError, OSError) as error:
        raise ValueError(f"{path.name} cannot be read as a sound ({error.strerror})") from error
    if fault := fault_in_times(0.0, abs(late)):
        raise ValueError(f"{path.name} has damaged time stamps of picture and sound: {fault}")
    first = round(late * rate)
    mono = torch.nn.functional.pad(waveform.mean(dim=0), (max(0, first), 0))[max(0, -first) :]
    return prepared_speech(mono, rate)


def _decoded(container: av.container.InputContainer) -> tuple[Tensor, int, float]:
    """Return the samples [channels, n], their rate, and the seconds from the first picture to the first sample."""
    stream = container.streams.audio[0]
    to_floats = av.AudioResampler(format="fltp", layout=stream.layout, rate=stream.rate)
    pieces, begins = [], None
    for frame in container.decode(stream):
        if begins is None:
            begins = frame.time or 0.0
        pieces += [piece.to_ndarray() for piece in to_floats.resample(frame)]
    pieces += [piece.to_ndarray() for piece in to_floats.resample(None)]
    if not pieces:
        raise ValueError("its sound is empty: use a file with sound, or put a .wav next to the clip")
    shown = container.streams.video[0] if container.streams.video else None
    start = float(shown.start_time * shown.time_base) if shown is not None and shown.start_time is not None else 0.0
    late = begins - start if shown is not None else 0.0
    return torch.from_numpy(np.concatenate(pieces, axis=1)), stream.rate, late
