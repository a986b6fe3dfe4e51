"""Speech features around each frame of a talking clip, and guidance by text and sound.

Frame f of the video hears frames f - 2 .. f + 2 of the sound, both at 25 per second. Before the sound begins, its first frame
is heard; after its end, silence: zero features, which training also uses for a dropped sound.

Source: docs/METHOD.md, 7.1 (loudness, 25 features per second, window of 5, packing into slots) and 7.3 (three-pass guidance).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from ..geometry import TALK_FRAME_RATE, TEMPORAL_STRIDE
from ..systems.layouts import Layout
from .loudness import with_loudness

SAMPLE_RATE = 16_000  # of the sound that the speech encoder hears
SAMPLES_PER_FRAME = SAMPLE_RATE // TALK_FRAME_RATE
SPEECH_LUFS = -23.0
LOOK_AROUND = 2  # frames heard on either side
WINDOW = 2 * LOOK_AROUND + 1
SLOT_WINDOW = WINDOW + TEMPORAL_STRIDE - 1  # that the four frames of a slot hear together

# A long sound is encoded in pieces, so that memory does not grow with its length. The released code encodes it whole.
PIECE_FRAMES = 1000
MARGIN_FRAMES = 125  # context on either side of a piece

EncodeSpeech = Callable[[torch.Tensor, int], torch.Tensor]


def prepared_speech(samples: torch.Tensor, rate: int = SAMPLE_RATE) -> torch.Tensor:
    """Return `samples` [n], one channel at `rate` per second, at the 16 kHz and -23 LUFS of the speech encoder.

    Raises:
        ValueError: a sound shorter than the 0.4 s over which loudness is measured, or torchaudio is missing.
    """
    if rate != SAMPLE_RATE:
        samples = _resampled(samples, rate)
    return with_loudness(samples, SAMPLE_RATE, SPEECH_LUFS)


def _resampled(samples: torch.Tensor, rate: int) -> torch.Tensor:
    """Return `samples` at 16 kHz; torchaudio is imported here, since ComfyUI does without it, and only Talk needs it."""
    try:
        from torchaudio.functional import resample
    except (ImportError, OSError, RuntimeError) as error:  # the last two: it was built for another PyTorch or CUDA
        raise ValueError(
            f"SVI Talk needs torchaudio to bring a sound of {rate} Hz to {SAMPLE_RATE} Hz, but it cannot be imported "
            f"({error}): install the torchaudio of your PyTorch version."
        ) from error
    return resample(samples, rate, SAMPLE_RATE)


@torch.no_grad()
def encode_speech(wav2vec2: Any, samples: torch.Tensor, num_frames: int) -> torch.Tensor:
    """Return the features [num_frames, layers, channels] of `samples` [n] at 16 kHz, on the model's device, in fp32 on the CPU.

    They are resampled to 25 per second before wav2vec2's transformer, not after (docs/METHOD.md, 7.1).

    Raises:
        ValueError: a result that is not finite.
    """
    features = wav2vec2.feature_extractor(samples[None])
    features = torch.nn.functional.interpolate(features.mT, size=num_frames, mode="linear", align_corners=True).mT
    _, layers = wav2vec2.encoder(wav2vec2.feature_projection(features))
    found = torch.stack(layers[1:], dim=2)[0].float().cpu()  # layers[0] is the input of the first layer
    if not bool(found.isfinite().all()):
        raise ValueError("the speech encoder returned NaN or infinite values: try another encoder file.")
    return found


def num_clips_for(seconds: float, layout: Layout) -> int:
    """Return how many clips of `layout` a sound of `seconds` needs; the last may end in silence."""
    num_frames = math.ceil(round(seconds * TALK_FRAME_RATE, 6))
    return max(1, math.ceil((num_frames - layout.overlap) / (layout.num_frames - layout.overlap)))


@dataclass(frozen=True)
class Piece:
    """A part of a sound, in frames: `first` .. `stop` - 1, encoded with context from `begin` to `end`."""

    first: int
    stop: int
    begin: int
    end: int


def piece_of(frame: int, num_frames: int) -> Piece:
    """Return the piece that holds `frame` of a sound of `num_frames`."""
    if num_frames <= PIECE_FRAMES + 2 * MARGIN_FRAMES:
        return Piece(0, num_frames, 0, num_frames)
    first = frame // PIECE_FRAMES * PIECE_FRAMES
    stop = min(first + PIECE_FRAMES, num_frames)
    return Piece(first, stop, max(0, first - MARGIN_FRAMES), min(stop + MARGIN_FRAMES, num_frames))


@dataclass(eq=False)
class SpeechFeatures:
    """The features of a sound, encoded on demand; the last two pieces are kept.

    Attributes:
        samples: [n], as from :func:`prepared_speech`.
        encode: (samples [n], frames t) -> features [t, layers, channels].
    """

    samples: torch.Tensor
    encode: EncodeSpeech
    _pieces: dict[Piece, torch.Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def num_frames(self) -> int:
        """Whole frames of the sound."""
        return len(self.samples) // SAMPLES_PER_FRAME

    def heard_by(self, start_frame: int, num_frames: int) -> torch.Tensor:
        """Return the features [num_frames + 4, layers, channels] that a clip hears: two frames more on either side.

        Args:
            start_frame: where the clip's frame 0 lies on the sound's timeline.
        """
        frames = range(start_frame - LOOK_AROUND, start_frame + num_frames + LOOK_AROUND)
        heard = [self._features_at(max(0, frame)) for frame in frames if frame < self.num_frames]  # frames left out come last
        silence = torch.zeros_like(heard[0] if heard else self._features_at(self.num_frames - 1))
        return torch.stack(heard + [silence] * (len(frames) - len(heard)))

    def _features_at(self, frame: int) -> torch.Tensor:
        piece = piece_of(frame, self.num_frames)
        if piece not in self._pieces:
            while len(self._pieces) > 1:
                del self._pieces[next(iter(self._pieces))]
            last = None if piece.end == self.num_frames else piece.end * SAMPLES_PER_FRAME
            samples = self.samples[piece.begin * SAMPLES_PER_FRAME : last]
            self._pieces[piece] = self.encode(samples, piece.end - piece.begin)
        return self._pieces[piece][frame - piece.begin]


def slot_windows(heard: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return `heard` [T + 4, layers, channels] grouped by slot, for MultiTalk's audio projection.

    Slot 0 holds one frame and hears its window of 5. A later slot holds four frames; from their windows the projection takes
    the first three of the first frame, the centres of the middle two, and the last three of the last: 8 frames in a row.

    Returns:
        ([1, 1, 5, layers, channels], [1, F - 1, 8, layers, channels])
    """
    later = heard[1:].unfold(0, SLOT_WINDOW, TEMPORAL_STRIDE).movedim(-1, 1)
    return heard[None, None, :WINDOW], later[None]


def guided_pair(
    positive: torch.Tensor, negative: torch.Tensor, silent: torch.Tensor, audio_cfg: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the pair (conditional, unconditional) from which ordinary guidance computes guidance by text and sound.

    With text scale s_t, ``unconditional + s_t (conditional - unconditional)`` is
    ``v(neg, silence) + s_t [v(pos, sound) - v(neg, sound)] + s_a [v(neg, sound) - v(neg, silence)]``. The sum of the weights
    is 1, so it holds for denoised predictions as for velocities.

    Args:
        positive: prediction for prompt and sound.
        negative: for the negative prompt and the sound.
        silent: for the negative prompt and silence.
        audio_cfg: s_a.
    """
    unconditional = silent + audio_cfg * (negative - silent)
    return unconditional + (positive - negative), unconditional
