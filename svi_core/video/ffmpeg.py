"""Run the ffmpeg program that imageio-ffmpeg installs: every call, its pipes and its failures are here.

ffmpeg never outlives the block that started it: an exception in the block, an interrupt included, kills it.
"""

import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, NoReturn

import imageio_ffmpeg

_NO_WINDOW = getattr(subprocess, "CREATE_NO_WINDOW", 0)  # Windows would open a console for each call


class FfmpegError(OSError):
    """ffmpeg failed; the message names the file, the last line that ffmpeg printed, and a fix."""


@contextmanager
def ffmpeg_writing(path: Path, arguments: Sequence[object], named: Path | None = None) -> Iterator[Callable[[object], None]]:
    """Run ffmpeg with `arguments` and the output file `path`; yield a function that writes bytes to its standard input.

    The file is complete when the block ends.

    Args:
        named: the file that an error names, if not `path`.

    Raises:
        FfmpegError: ffmpeg failed.
    """
    failure = f"ffmpeg could not write {named or path}", "check free space and permissions of the folder"
    with _running([*arguments, path], *failure, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as (pipe, fail):

        def write(data) -> None:
            try:
                pipe.write(data)
            except OSError:  # ffmpeg has exited
                fail()

        yield write
        try:
            pipe.close()
        except OSError:
            fail()


def run_ffmpeg(path: Path, arguments: Sequence[object], named: Path | None = None) -> None:
    """Write `path` as :func:`ffmpeg_writing` does, with nothing on standard input.

    Raises:
        FfmpegError: ffmpeg failed.
    """
    with ffmpeg_writing(path, arguments, named):
        pass


@contextmanager
def ffmpeg_reading(path: Path, arguments: Sequence[object], seek: Sequence[object] = ()) -> Iterator[IO[bytes]]:
    """Run ffmpeg on the input file `path`; yield its standard output, to be read to its end.

    Args:
        arguments: for the output.
        seek: arguments for the input.

    Raises:
        FfmpegError: ffmpeg failed.
    """
    failure = f"{path} is not a video that can be read", "choose another one; if it is new, free disk space"
    command = [*seek, "-i", path, *arguments, "-"]
    with _running(command, *failure, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as (pipe, _):
        yield pipe


@contextmanager
def _running(
    arguments: Sequence[object], failure: str, fix: str, stdin: int, stdout: int
) -> Iterator[tuple[IO[bytes], Callable[[], NoReturn]]]:
    """Run ffmpeg and yield its one pipe and a function that raises its failure; wait for its end after the block."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-nostdin", "-loglevel", "error", *map(str, arguments)]
    with tempfile.TemporaryFile() as messages:  # a pipe that nobody reads could fill up and block ffmpeg
        process = subprocess.Popen(command, stdin=stdin, stdout=stdout, stderr=messages, creationflags=_NO_WINDOW)
        pipe = process.stdin or process.stdout
        assert pipe is not None

        def fail() -> NoReturn:
            process.wait()
            messages.seek(0)
            lines = messages.read().decode(errors="replace").strip().splitlines() or ["no message"]
            raise FfmpegError(f"{failure} ({lines[-1]}): {fix}.")

        try:
            yield pipe, fail
            if process.wait():
                fail()
        finally:
            process.kill()
            process.wait()
            with suppress(OSError):  # what ffmpeg did not take is still in the buffer
                pipe.close()
