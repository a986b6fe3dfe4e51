"""The file behind a VIDEO of ComfyUI, or a temporary one for a VIDEO in memory.

A temporary file lies in ComfyUI's temp folder, which ComfyUI empties when it starts and ends, and is removed as soon as nothing
refers to the video any more: ComfyUI's cache holds at most the one that each node used last.
"""

import hashlib
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import comfy.model_management
import folder_paths
import numpy as np
from comfy_api.latest import InputImpl

from ...svi_core.files.atomic_file import write_bytes
from ...svi_core.video.kept_frames import keep_frames
from ...svi_core.video.sound import SoundTrack
from ...svi_core.video.source_video import SourceVideo, probe_video
from ...svi_core.video.video_file import to_uint8
from ...svi_core.video.video_part import VideoPart, keep_part, part_between

_holders: Counter[Path] = Counter()  # videos that need each temporary file
_opening: set[object] = set()  # a mark of each video that is being opened: it may find a file that loses its last holder
_lock = threading.RLock()  # the garbage collector may release a video in the middle of the code that holds it


def open_video(video, check: Callable[[Path], object] = lambda path: None) -> VideoPart:
    """Return what a VIDEO shows: a file, a part of one, or a temporary file with the frames and the sound in memory.

    Args:
        check: called with a file of the user before it is read; may raise.

    Raises:
        OSError: it cannot be read, or no temporary file be written.
        ValueError: no frames, or a cropped video.
    """
    if isinstance(video, InputImpl.VideoFromComponents):
        return part_between(_kept(lambda: _from_components(video)))
    stream = video.get_stream_source()
    if isinstance(stream, str):
        check(Path(stream))
        source = probe_video(Path(stream))
    else:
        source = _kept(lambda: _from_bytes(stream.getbuffer()))
    require_uncropped(video, source.path)
    return part_between(source, *video.get_active_trim_window())


def part_as_file(part: VideoPart) -> SourceVideo:
    """Return `part` as a file of its own, a temporary one without loss."""
    return _kept(lambda: keep_part(_temporary_folder(), part))


def require_uncropped(video, path: Path) -> None:
    """Refuse a VIDEO that shows another size than its file `path`: a crop must not be ignored.

    Raises:
        ValueError: with both sizes.
    """
    shown, stored = video.get_dimensions(), InputImpl.VideoFromFile(str(path)).get_dimensions()
    if tuple(shown) != tuple(stored):
        raise ValueError(
            f"video shows {shown[0]} x {shown[1]} pixels of {path.name}, which has {stored[0]} x {stored[1]}, but SVI reads "
            "whole pictures: save it with Save Video, then load that file with Load Video."
        )


def _from_components(video) -> SourceVideo:
    parts = video.get_components()
    images, audio = parts.images, parts.audio

    def chunks() -> Iterator[np.ndarray]:
        for image in images:
            comfy.model_management.throw_exception_if_processing_interrupted()
            yield to_uint8(image[None, ..., :3])

    has_sound = audio is not None and audio["waveform"].numel()
    sound = SoundTrack(audio["waveform"][0].float().cpu(), int(audio["sample_rate"])) if has_sound else None
    return keep_frames(_temporary_folder(), chunks, float(parts.frame_rate), sound)


def _from_bytes(content: memoryview) -> SourceVideo:
    """Return a file with the bytes of a video file in memory."""
    path = _temporary_folder() / f"svi-bytes-{hashlib.sha256(content).hexdigest()[:16]}.mp4"
    if not path.exists():
        write_bytes(path, content)
    return probe_video(path)


def _temporary_folder() -> Path:
    folder = Path(folder_paths.get_temp_directory())
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _kept(open_source: Callable[[], SourceVideo]) -> SourceVideo:
    """Return an opened video whose files are removed once it, and every other video of the same files, is gone."""
    with _nothing_removed():
        source = open_source()
        files = [file for file in (source.path, source.exact) if file is not None]
        with _lock:
            _holders.update(files)
        weakref.finalize(source, _release, files)
    return source


@contextmanager
def _nothing_removed() -> Iterator[None]:
    """Remove no file inside, and afterwards those that lost their last holder meanwhile."""
    mark = object()
    with _lock:
        _opening.add(mark)
    try:
        yield
    finally:
        with _lock:
            _opening.remove(mark)
            _remove_unused()


def _release(files: list[Path]) -> None:
    with _lock:
        _holders.subtract(files)
        _remove_unused()


def _remove_unused() -> None:
    for file in [] if _opening else [file for file, num_holders in _holders.items() if num_holders <= 0]:
        del _holders[file]
        with suppress(OSError):  # Windows, while a player has it open; ComfyUI empties the folder later
            file.unlink(missing_ok=True)
