"""A ComfyUI process in which faults can be placed, and what the fault tests ask of a run's folder."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from comfyui.server import PACK_NODES, ComfyServer
from svi_core.video.frame_times import count_frames

FAULT_NODES = PACK_NODES | {"svi_fault_injection": Path(__file__).with_name("fault_injection")}


@contextmanager
def fault(server: ComfyServer, place: str, call: int, kind: str) -> Iterator[Path]:
    """Let call number `call` of the "model" or the "decoder" fail with `kind`, while the block runs.

    Gives the file that exists while a call is made to "stand still"; removing it lets the call go on.
    """
    plan, standing_still = server.base_directory / "fault.json", server.base_directory / "standing_still"
    plan.write_text(json.dumps({"place": place, "call": call, "kind": kind, "number": time.monotonic_ns()}))
    try:
        yield standing_still
    finally:
        plan.unlink()
        standing_still.unlink(missing_ok=True)


def wait_until_there(path: Path, server: ComfyServer, seconds: float = 120) -> None:
    """Return once `path` exists."""
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < deadline and server.is_running, server.log_tail()
        time.sleep(0.01)


def require_sound(folder: Path, num_clips: int) -> None:
    """Check that `folder` holds exactly `num_clips` finished clips, nothing half-written, and a video of them."""
    names = [path.name for path in folder.rglob("*")]
    assert not [name for name in names if "staging" in name]
    assert len([name for name in names if name.endswith(".safetensors")]) == num_clips
    if num_clips:
        assert count_frames(folder / "video.mp4", decode=True) == 9 + 4 * (num_clips - 1)
