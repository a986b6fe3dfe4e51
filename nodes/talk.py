"""SVI-Talk: a person speaks the given audio, with MultiTalk's audio layers and the SVI-Talk LoRA.

ComfyUI loads the weights (Load Model Patch, Load Audio Encoder) and runs the audio cross-attention of each block
(MultiTalkCrossAttnPatch) where SVI-Talk has it. ComfyUI's Infinite Talk node is another method: it resamples features after
the encoder, keeps the loudness, pads with grey, marks several slots as known, and overwrites the motion slots in every step.

Source: docs/METHOD.md, 7.
"""

from dataclasses import dataclass, field

import comfy.model_management
import comfy.samplers
import torch
from comfy.audio_encoders.wav2vec2 import Wav2Vec2Model
from comfy.ldm.wan.model_multitalk import MultiTalkAudioProjModel, MultiTalkCrossAttnPatch
from comfy_api.latest import io

from ..svi_core.clips.clip_plan import ClipRequest
from ..svi_core.conditioning.talk import (
    LOOK_AROUND,
    SpeechFeatures,
    encode_speech,
    guided_pair,
    num_clips_for,
    prepared_speech,
    slot_windows,
)
from ..svi_core.files.fingerprint import fingerprint
from ..svi_core.geometry import TALK_FRAME_RATE
from ..svi_core.systems.layouts import LAYOUTS, Condition, Layout, make_layout
from ..svi_core.systems.lora_variant import AutoLayout
from ..svi_core.video.sound import SoundTrack
from .bridge import models
from .bridge.control import ControlType
from .bridge.schemas import svi_schema
from .layouts import LayoutType

MAX_AUDIO_CFG = 20.0
_SILENT_PASS = 2  # ComfyUI numbers the positive pass 0 and the negative pass 1
_GUIDANCE = "sampler_calc_cond_batch_function"  # ComfyUI's option for the function that runs the passes of a step


class SVITalk(io.ComfyNode):
    """Make the clips follow speech."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return svi_schema(
            node_id="SVITalk",
            display_name="SVI Talk",
            description="Make the person speak: lips and head follow the audio, which becomes the video's sound. Needs the "
            "SVI-Talk LoRA, MultiTalk's audio layers and the layout Talk.",
            category="conditioning",
            search_aliases=["svi talk", "multitalk", "lip sync", "audio", "speech"],
            inputs=[
                io.Audio.Input("audio", tooltip="The speech of one person, from Load Audio."),
                io.AudioEncoder.Input("audio_encoder", tooltip="chinese-wav2vec2-base, from Load Audio Encoder."),
                io.ModelPatch.Input("model_patch", tooltip="multitalk, from Load Model Patch."),
                LayoutType.Input("layout", optional=True, tooltip="From SVI Layout; 81-frame clips if empty."),
                ControlType.Input("control", optional=True, tooltip="Another control to combine with this one."),
                io.Float.Input(
                    "audio_cfg",
                    default=5.0,
                    min=0.0,
                    max=MAX_AUDIO_CFG,
                    step=0.1,
                    tooltip="How strongly lips follow the audio: 5, with cfg 2, as the authors do. 1: no extra pass, for "
                    "distilled LoRAs.",
                ),
            ],
            outputs=[
                ControlType.Output("controls", display_name="control", tooltip="For control of SVI Generate."),
                io.Int.Output("num_clips", tooltip="Clips that cover the audio, for num_clips of SVI Generate."),
            ],
        )

    @classmethod
    def execute(cls, audio, audio_encoder, model_patch, audio_cfg, layout=None, control=()) -> io.NodeOutput:
        _require_one_sound(control)
        layout = _talk_layout(layout)
        talk = make_control(audio, audio_encoder, model_patch, audio_cfg)
        return io.NodeOutput((*control, talk), num_talk_clips(talk.sound.seconds, layout))


@dataclass(frozen=True)
class TalkControl:
    """The speech that the clips of a run follow (bridge/control.py).

    Attributes:
        sound: the audio as loaded, for the video's sound track.
        speech: its features, for the model.
        model_patch: MultiTalk's audio layers.
        weights_key: a hash of the audio layers and the audio encoder.
        audio_cfg: guidance scale of the audio; 1 for none.
    """

    sound: SoundTrack
    speech: SpeechFeatures = field(repr=False)
    model_patch: object
    weights_key: str
    audio_cfg: float
    _silence: dict[tuple[torch.device, torch.Size], torch.Tensor] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    condition = Condition.SOUND
    frame_rate = TALK_FRAME_RATE
    num_frames = 0

    @property
    def num_extra_passes(self) -> int:
        """1, without audio, if the audio is guided."""
        return num_silent_passes(self.audio_cfg)

    def check(self, model, layout: Layout, width: int, height: int) -> None:
        """Refuse another layout, and a model that the audio layers do not fit; any frame size will do."""
        _talk_layout(layout)
        if not models.needs_clip_vision(model):
            raise ValueError("model is not a Wan 2.1 I2V model, which SVI-Talk is trained on: load Wan 2.1 I2V 480p 14B.")
        transformer, layers = model.model.diffusion_model, self.model_patch.model.blocks
        width_of_layers = layers[0].audio_cross_attn.dim
        if transformer.dim != width_of_layers or len(transformer.blocks) > len(layers):
            raise ValueError(
                f"model has {len(transformer.blocks)} blocks of width {transformer.dim}, but model_patch has audio layers for "
                f"{len(layers)} blocks of width {width_of_layers}: use Wan 2.1 I2V 14B with multitalk."
            )
        if _GUIDANCE in model.model_options:
            raise ValueError(
                "model already carries a guidance function from another node, in place of SVI Talk's: disconnect that node."
            )

    def determinants(self, request: ClipRequest) -> object:
        """Return the audio of the clip and the weights that process it.

        Samples represent their features, so a later change of the audio does not invalidate earlier clips. It does reach
        earlier features through the encoder's attention, but weakly; loudness is normalised by the encoder's first layer.
        """
        first, stop = request.start_frame - LOOK_AROUND, request.start_frame + request.layout.num_frames + LOOK_AROUND
        heard = self.sound.between(first / TALK_FRAME_RATE, (stop + 1) / TALK_FRAME_RATE)
        return (heard, self.sound.sample_rate, self.weights_key, self.audio_cfg)

    def patched(self, model, request: ClipRequest, samples: torch.Tensor):
        """Return a clone of `model` that attends to the audio of the clip and guides with it."""
        heard = self.speech.heard_by(request.start_frame, request.layout.num_frames).to(model.load_device)
        project = self.model_patch.model.audio_proj  # its weights come to where its input is
        tokens = project(*slot_windows(heard))
        kind = tokens.device, tokens.shape
        if kind not in self._silence:
            self._silence[kind] = project(*slot_windows(torch.zeros_like(heard)))
        clone = model.clone()
        clone.set_model_patch(AudioAttention(self.model_patch, tokens, self._silence[kind]), "attn2_patch")
        if self.num_extra_passes:
            clone.set_model_sampler_calc_cond_batch_function(AudioGuidance(self.audio_cfg))
        return clone


class AudioAttention(MultiTalkCrossAttnPatch):
    """ComfyUI's audio cross-attention, with silence in the extra pass of the guidance.

    Args:
        tokens: audio tokens of each slot [1, F, 32, channels].
        silence: tokens of silence, of the same shape.
    """

    def __init__(self, model_patch, tokens: torch.Tensor, silence: torch.Tensor):
        super().__init__(model_patch)
        self.tokens, self.silence = tokens, silence

    def __call__(self, kwargs: dict) -> torch.Tensor:
        """Return the tokens "x" of all passes plus their attention to the audio.

        Raises:
            ValueError: the model does not process the whole clip at once.
        """
        options, num_slots = kwargs["transformer_options"], self.tokens.shape[1]
        if options["grid_sizes"][0] != num_slots:
            raise ValueError(
                f"the sound is for {num_slots} slots of a clip, but the model works on {options['grid_sizes'][0]} of them: "
                "disconnect nodes that split clips, such as context windows."
            )
        passes = options["cond_or_uncond"]
        rows = kwargs["x"].shape[0] // len(passes)
        heard = [self.silence if number == _SILENT_PASS else self.tokens for number in passes for _ in range(rows)]
        return super().__call__({**kwargs, "transformer_options": {**options, "audio_embeds": torch.cat(heard, dim=1)}})

    def to(self, device_or_dtype) -> "AudioAttention":
        """Return a copy on a device. Ignore a dtype: it may be fp8, and the attention casts by itself."""
        if not isinstance(device_or_dtype, torch.device):
            return self
        return AudioAttention(self.model_patch, self.tokens.to(device_or_dtype), self.silence.to(device_or_dtype))


@dataclass(frozen=True)
class AudioGuidance:
    """Run the passes of a step plus one in silence; ComfyUI then applies cfg.

    At cfg 1 ComfyUI leaves out the negative prompt, so the silent pass uses the positive prompt.
    """

    audio_cfg: float

    def __call__(self, args: dict) -> list[torch.Tensor]:
        """Return the predictions [conditional, unconditional] for ComfyUI's guidance."""
        positive, negative = args["conds"]
        conds = [positive, negative, positive if negative is None else negative]
        made = comfy.samplers.calc_cond_batch(args["model"], conds, args["input"], args["sigma"], args["model_options"])
        if negative is None:
            made[1] = made[0]
        return list(guided_pair(*made, self.audio_cfg))


def make_control(audio: dict, audio_encoder, model_patch, audio_cfg: float) -> TalkControl:
    """Return the control for `audio`, a ComfyUI AUDIO.

    Raises:
        ValueError: an input that is missing or of another kind.
    """
    if not 0.0 <= audio_cfg <= MAX_AUDIO_CFG:
        raise ValueError(f"audio_cfg is {audio_cfg}: use 0 to {MAX_AUDIO_CFG:g}; the authors use 5.")
    sound = _sound_of(audio)
    projection = getattr(getattr(model_patch, "model", None), "audio_proj", None)
    if not isinstance(projection, MultiTalkAudioProjModel):
        found = type(getattr(model_patch, "model", model_patch)).__name__
        raise ValueError(f"model_patch ({found}) has no audio layers of MultiTalk: load multitalk with Load Model Patch.")
    _require_speech_encoder(audio_encoder, projection)
    speech = prepared_speech(sound.waveform.float().mean(dim=0), sound.sample_rate)
    features = SpeechFeatures(speech, SpeechEncoder(audio_encoder))
    weights = [models.weights_fingerprint(patcher) for patcher in (audio_encoder.patcher, model_patch)]
    return TalkControl(sound, features, model_patch, fingerprint(weights), audio_cfg)


@dataclass(frozen=True)
class SpeechEncoder:
    """ComfyUI's wav2vec2, resampled to 25 features per second before its transformer, as in SVI-Talk."""

    audio_encoder: object

    def __call__(self, samples: torch.Tensor, num_frames: int) -> torch.Tensor:
        """Return the features [num_frames, layers, channels] of `samples` [n] at 16 kHz, on the CPU."""
        comfy.model_management.load_model_gpu(self.audio_encoder.patcher)
        return encode_speech(self.audio_encoder.model, samples.to(self.audio_encoder.load_device), num_frames)


def num_talk_clips(seconds: float, layout: Layout | AutoLayout | None) -> int:
    """Return how many clips of `layout` cover `seconds` of audio; raise ValueError for a layout without audio."""
    return num_clips_for(seconds, _talk_layout(layout))


def num_silent_passes(audio_cfg: float) -> int:
    """Return the silent passes per step: none without guidance by the audio."""
    return 0 if audio_cfg == 1.0 else 1


def _require_speech_encoder(audio_encoder, projection: MultiTalkAudioProjModel) -> None:
    """Raise ValueError for an audio encoder whose features the audio layers cannot read."""
    model = getattr(audio_encoder, "model", audio_encoder)
    found = type(model).__name__
    if isinstance(model, Wav2Vec2Model):
        sizes = (len(model.encoder.layers), model.encoder.layer_norm.normalized_shape[0])
        if sizes == (projection.blocks, projection.channels):
            return
        found = f"wav2vec2 of {sizes[0]} layers of width {sizes[1]}"
    raise ValueError(
        f"audio_encoder is {found}, but model_patch reads a wav2vec2 of {projection.blocks} layers of width "
        f"{projection.channels}: load chinese-wav2vec2-base with Load Audio Encoder."
    )


def _sound_of(audio: dict | None) -> SoundTrack:
    if audio is None:
        raise ValueError("audio is empty: connect Load Audio with a file that has sound.")
    waveform = audio["waveform"]
    if waveform.shape[0] != 1:
        raise ValueError(f"audio holds a batch of {waveform.shape[0]} sounds, but a video has one: pick one.")
    return SoundTrack(waveform[0], audio["sample_rate"])


def _talk_layout(layout: Layout | AutoLayout | None) -> Layout:
    """Return `layout` as a Talk layout, the default if None; raise ValueError for a layout without audio."""
    if layout is None:
        return LAYOUTS["Talk"]
    if isinstance(layout, AutoLayout):
        return make_layout("Talk", layout.num_frames, layout.num_motion_frames)
    if layout.condition is not Condition.SOUND:
        raise ValueError(f"layout is {layout.name!r}, but SVI Talk is connected to control: choose 'Talk' in SVI Layout.")
    return layout


def _require_one_sound(controls: tuple) -> None:
    if any(control.condition is Condition.SOUND for control in controls):
        raise ValueError("control already has a sound, but a video has one: use one SVI Talk.")
