"""Colours of a clip are matched where it was decoded; where that device lacks memory, on the host, with the same frames."""

import pytest
import torch

from svi_core.clips import clip_colours
from svi_core.clips.chain import Clip, DecodedClip
from svi_core.clips.clip_colours import corrected_frames
from svi_core.clips.clip_plan import ClipPlan
from svi_core.clips.video_settings import VideoSettings
from svi_core.schedule.text import parse_schedule
from svi_core.systems.layouts import make_layout
from svi_core.video.colour import ColourCorrection

FRAMES = torch.rand(25, 16, 16, 3, generator=torch.Generator().manual_seed(0)) * 0.5 + 0.2
ANCHOR = torch.rand(1, 16, 16, 3, generator=torch.Generator().manual_seed(1))
BEGIN = ColourCorrection((1.1, 0.9, 1.0), (0.0, 0.02, 0.0))


class OnDevice(torch.Tensor):
    """A tensor on a device that has no memory for the operations named in `refused`, from their `after`-th call on."""

    refused, after, calls = "", 0, 0

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        name = function.__name__
        if name == "cpu":
            return args[0].as_subclass(torch.Tensor)
        if name == cls.refused:
            OnDevice.calls += 1
            if OnDevice.calls > cls.after:
                raise torch.OutOfMemoryError("CUDA out of memory")
        return super().__torch_function__(function, types, args, kwargs or {})


def corrected_clip(kind):
    """Return a clip's corrected frames and the correction of its end, with chunks of the class `kind`."""
    layout = make_layout("2.0 Pro", num_frames=25)
    request = ClipPlan(1, parse_schedule("a"), layout).request(0)
    chunks = [FRAMES[:1], *FRAMES[1:].split(8)]
    clip = Clip(
        request, "0" * 64, torch.zeros(1, 16, 7, 2, 2), False, lambda latent: (chunk.as_subclass(kind) for chunk in chunks)
    )
    settings = VideoSettings(colour_strength=0.8, anchor_frame=lambda request: ANCHOR)
    shown, end = corrected_frames(settings, DecodedClip(clip), BEGIN)
    return list(shown), end


def refuse(monkeypatch, name, after=0):
    monkeypatch.setattr(OnDevice, "refused", name)
    monkeypatch.setattr(OnDevice, "after", after)
    monkeypatch.setattr(OnDevice, "calls", 0)


def test_with_room_frames_stay_where_they_were_decoded(monkeypatch, caplog):
    refuse(monkeypatch, "")
    expected, _ = corrected_clip(torch.Tensor)
    found, _ = corrected_clip(OnDevice)
    assert [type(chunk) for chunk in found] == [OnDevice] * 4 and caplog.text == ""
    assert torch.equal(torch.cat(found).as_subclass(torch.Tensor), torch.cat(expected))


@pytest.mark.parametrize(
    ("name", "after", "num_on_host"),
    [("half", 0, 4), ("half", 2, 4), ("cat", 1, 4), ("mean", 0, 4), ("lerp_", 0, 4), ("lerp_", 2, 2)],
    ids=["first chunk kept", "third chunk kept", "end joined", "end measured", "first chunk shown", "third chunk shown"],
)
def test_without_room_the_host_gives_the_same_frames(monkeypatch, caplog, name, after, num_on_host):
    expected, same_end = corrected_clip(torch.Tensor)
    refuse(monkeypatch, name, after + (2 if name == "cat" else 0))
    found, end = corrected_clip(OnDevice)
    assert end == same_end and OnDevice.calls > OnDevice.after, "memory did not run out"
    assert [type(chunk) for chunk in found] == [OnDevice] * (4 - num_on_host) + [torch.Tensor] * num_on_host
    assert torch.equal(torch.cat([chunk.as_subclass(torch.Tensor) for chunk in found]), torch.cat(expected))
    assert caplog.text.count("SVI: the device lacks memory to match a clip's colours; they are matched on the host.") == 1


def test_a_clip_whose_decoding_went_on_elsewhere_is_measured_where_it_ended():
    """After want of memory the VAE decodes in tiles, which ComfyUI leaves on the host: two devices cannot be joined."""
    kept = clip_colours._KeptFrames([FRAMES[:1], FRAMES[1:9], FRAMES[9:17].to("meta")])
    assert kept.end.device.type == "meta" and kept.end.shape == (16, 16, 16, 3)


def test_what_the_host_cannot_do_either_and_other_errors_are_raised(monkeypatch):
    monkeypatch.setattr(OnDevice, "cpu", lambda self: self, raising=False)
    refuse(monkeypatch, "half")
    with pytest.raises(torch.OutOfMemoryError):
        corrected_clip(OnDevice)
    with pytest.raises(RuntimeError, match="a fault"):
        monkeypatch.setattr("svi_core.clips.clip_colours.match_colour", fails)
        corrected_clip(torch.Tensor)


def fails(*_):
    raise RuntimeError("a fault")
