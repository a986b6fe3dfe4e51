"""Count model calls and copies of frames inside ComfyUI's server; only benchmarks link it into custom_nodes.

It wraps ComfyUI's own functions, so our nodes and stock nodes are counted alike:

    GET  /svi_benchmark            the counts
    POST /svi_benchmark/restart    count from 0; {"height": H, "width": W} also counts copies of frames of that size
"""

import functools
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

import comfy.ldm.wan.model
import comfy.ldm.wan.vae
import comfy.model_patcher
import comfy.sd
import execution
import torch
from aiohttp import web
from server import PromptServer
from torch.utils._python_dispatch import TorchDispatchMode

import nodes  # ComfyUI's, whose folder comes first on the server's path

NODE_CLASS_MAPPINGS: dict[str, type] = {}

COPIES = ("aten::cat", "aten::stack", "aten::clone", "aten::copy_", "aten::_to_copy", "aten::index_select", "aten::repeat")
counted: Counter = Counter()
frame_size: dict[str, int] = {}


class CountFrameCopies(TorchDispatchMode):
    """Add up the bytes that copying operations write into tensors of whole frames."""

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        result = function(*arguments, **(keywords or {}))
        if function.name().split(".")[0] in COPIES and isinstance(result, torch.Tensor) and holds_frames(result.shape):
            counted["copied frame bytes"] += result.numel() * result.element_size()
        return result


def holds_frames(shape: torch.Size) -> bool:
    """Whether a tensor of this shape holds whole RGB frames: [..., H, W, 3] or [..., 3, T, H, W] or [..., 3, H, W]."""
    size = (frame_size["height"], frame_size["width"])
    last = len(shape) >= 3 and shape[-1] == 3 and tuple(shape[-3:-1]) == size
    return last or (len(shape) >= 3 and tuple(shape[-2:]) == size and 3 in shape[-4:-2])


def wrapped(owner: type, name: str, note: Callable) -> None:
    """Wrap `owner.name` so that `note(result, *arguments)` follows each call."""
    real = getattr(owner, name)

    @functools.wraps(real)
    def call(*arguments, **keywords):
        result = real(*arguments, **keywords)
        note(result, *arguments)
        return result

    setattr(owner, name, call)


def count(**amounts: int) -> None:
    for name, amount in amounts.items():
        counted[name.replace("_", " ")] += amount


def count_decoded(result, *_) -> None:
    count(decoded_frames=sum(part.shape[2] for part in result) if isinstance(result, list) else result.shape[2])


def count_patched(_, patcher, key, *__) -> None:
    count(patched_weights=1 if patcher.patches.get(key) else 0)


wrapped(comfy.ldm.wan.vae.WanVAE, "encode", lambda _, vae, x: count(VAE_encodes=1, encoded_frames=x.shape[2]))
wrapped(comfy.ldm.wan.vae.Decoder3d, "forward", count_decoded)
wrapped(comfy.ldm.wan.model.WanModel, "forward", lambda *_: count(model_calls=1))
wrapped(comfy.sd.CLIP, "encode_from_tokens_scheduled", lambda *_: count(text_encodes=1))
wrapped(comfy.model_patcher.ModelPatcher, "patch_weight_to_device", count_patched)


def waited_for(real: Callable) -> Callable:
    """Return `real`, whose time counts as waiting for video, unless it runs beside the loop in the pack's own thread."""

    @functools.wraps(real)
    def call(*arguments, **keywords):
        began = time.perf_counter()
        try:
            return real(*arguments, **keywords)
        finally:
            if threading.current_thread().name != "svi-background-writer":
                counted["video seconds"] += time.perf_counter() - began

    return call


def waited_to_give(give: Callable) -> Callable:
    """Return BackgroundWriter.give, whose time counts as waiting for video, without the time that making the frames takes."""

    @functools.wraps(give)
    def call(writer, source):
        began, elsewhere = time.perf_counter(), [0.0]

        def frames() -> Iterator:
            iterator = iter(source)
            while True:
                asked = time.perf_counter()
                item = next(iterator, None)
                elsewhere[0] += time.perf_counter() - asked
                if item is None:
                    return
                yield item

        try:
            return give(writer, frames())
        finally:
            counted["video seconds"] += time.perf_counter() - began - elsewhere[0]

    return call


@functools.cache
def time_video_writing() -> None:
    """Time what the loop waits for its encoder and the last join, and the stock SaveVideo; done once all packs are loaded.

    ComfyUI loads our pack under a name made from its path.
    """
    for name, module in list(sys.modules.items()):
        if name.endswith("svi_core.clips.growing_video"):
            module.BackgroundWriter.give = waited_to_give(module.BackgroundWriter.give)
            module.GrowingVideo.wait = waited_for(module.GrowingVideo.wait)
        if name.endswith("svi_core.clips.run_video"):
            module.join_videos = waited_for(module.join_videos)
    save_video = nodes.NODE_CLASS_MAPPINGS["SaveVideo"]
    save_video.execute = classmethod(waited_for(save_video.execute.__func__))


def around_execution(real: Callable) -> Callable:
    @functools.wraps(real)
    def execute(*arguments, **keywords):
        time_video_writing()
        if not frame_size:
            return real(*arguments, **keywords)
        with CountFrameCopies():
            return real(*arguments, **keywords)

    return execute


execution.PromptExecutor.execute = around_execution(execution.PromptExecutor.execute)
routes = PromptServer.instance.routes


@routes.get("/svi_benchmark")
async def tell(request: web.Request) -> web.Response:
    """Answer what was counted since the last restart."""
    return web.json_response(dict(counted))


@routes.post("/svi_benchmark/restart")
async def restart(request: web.Request) -> web.Response:
    """Begin to count anew."""
    counted.clear()
    frame_size.clear()
    frame_size.update(await request.json())
    return web.json_response(None)
