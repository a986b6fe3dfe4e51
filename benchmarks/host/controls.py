"""What Talk and Dance add to the host's work for a clip, with weights and sizes as their authors'."""

import threading
import time
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace

import torch

from benchmarks.gpu.comfyui import pack_module
from benchmarks.gpu.shapes import Shapes

LAYERS, CHANNELS = 12, 768  # of wav2vec2's features
INNER = 512  # of MultiTalk's projection
POSE_SIZE = (1280, 720)  # pixels, width and height


def talk_clip(shapes: Shapes, num_clips: int) -> list[list[float]]:
    """Return [wall, processor] seconds in which each clip but the first gets its audio tokens.

    They are made on the model's device. Where there is no GPU, PyTorch's meta device shows what is left for the processor,
    without the copy of the projection's weights.
    """
    import comfy.ops
    from comfy.ldm.wan.model_multitalk import MultiTalkAudioProjModel

    talk, features = pack_module("nodes.talk"), pack_module("svi_core.conditioning.talk")
    sizes = {"seq_len": 5, "seq_len_vf": 8, "blocks": LAYERS, "channels": CHANNELS, "intermediate_dim": INNER}
    project = MultiTalkAudioProjModel(**sizes, operations=comfy.ops.manual_cast, dtype=torch.float16)
    for weight in project.parameters():
        torch.nn.init.normal_(weight, std=0.01)
    num_samples = (num_clips + 1) * shapes.num_frames * features.SAMPLES_PER_FRAME
    speech = features.SpeechFeatures(torch.zeros(num_samples), lambda _, frames: torch.randn(frames, LAYERS, CHANNELS))
    patcher = SimpleNamespace(model=SimpleNamespace(audio_proj=project))
    control = talk.TalkControl(None, speech, patcher, "", 1.0)
    device = torch.device("cuda" if torch.cuda.is_available() else "meta")
    model = SimpleNamespace(load_device=device, clone=lambda: SimpleNamespace(set_model_patch=lambda *_: None))
    return [_taken(partial(control.patched, model, request, torch.empty(0))) for request in _requests(shapes, num_clips)][1:]


def poses_read(shapes: Shapes, num_clips: int) -> list[list[float]]:
    """Return [wall, processor] seconds in which each clip but the first gets its poses, read beside the clip before."""
    random = torch.Generator().manual_seed(3)
    frames = torch.randint(0, 256, (shapes.num_frames, POSE_SIZE[1], POSE_SIZE[0], 3), dtype=torch.uint8, generator=random)
    pose_video, reads = pack_module("svi_core.conditioning.pose_video"), threading.Semaphore(0)
    images = pose_video.PoseImages(frames.numpy(), ("",) * shapes.num_frames)

    def read(*asked) -> torch.Tensor:
        poses = images.read(*asked)
        reads.release()
        return poses

    ahead, indices, found = pose_video.ReadAhead(SimpleNamespace(read=read)), range(shapes.num_frames), []
    for clip in range(num_clips):
        found.append(_taken(lambda: ahead.read(indices, indices, shapes.width, shapes.height)))
        for _ in range(1 if clip else 2):  # the first clip's own read, and that of the next clip, which its sampling covers
            reads.acquire()
    return found[1:]


def _requests(shapes: Shapes, num_clips: int) -> list[SimpleNamespace]:
    layout = SimpleNamespace(num_frames=shapes.num_frames)
    return [SimpleNamespace(start_frame=(shapes.num_frames - 1) * n, layout=layout) for n in range(num_clips)]


@torch.inference_mode()
def _taken(work: Callable[[], object]) -> list[float]:
    wall, processor = time.perf_counter(), time.thread_time()
    work()
    return [time.perf_counter() - wall, time.thread_time() - processor]
