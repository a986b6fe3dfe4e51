"""Pack what a bare machine with PyTorch needs into one archive: ``python -m benchmarks.gpu.pack ARCHIVE``.

In it: ComfyUI without its tokenizers, server and front end, and wheels for Python 3.12 on Linux, pinned by their sha256:
comfy-kitchen with its CUDA part, comfy-aimdo, torchsde, ffmpeg and FlashAttention 3. It prints the sizes, refuses an archive
that is too large to travel, unpacks it into an empty folder and tries the imports there.
"""

import argparse
import io
import lzma
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatchcase
from multiprocessing import get_context
from pathlib import Path

from benchmarks.gpu.unpacked_trial import trials
from dev.comfyui_tree import chosen_comfyui, ensure_pinned_comfyui
from dev.packages import pip
from dev.setup_files import REPOSITORY, Layout, SetupError, check_sha256, say

MIB = 2**20
MAX_ARCHIVE, MAX_TOGETHER = 52 * MIB, 60 * MIB  # of the archive, and with the tracked files without those below
LEFT_AT_HOME = ("demo/models/tiny_", "demo/samples/", "docs/images/", "benchmarks/results/")
TREE = (
    *("comfy", "comfy_api", "comfy_execution", "comfy_config", "utils"),
    *("main.py", "protocol.py", "folder_paths.py", "latent_preview.py", "node_helpers.py", "comfyui_version.py"),
)
LEFT_OUT = ("comfy/text_encoders/*_tokenizer/*", "comfy/sd1_tokenizer/*", "*/__pycache__/*", "comfy_kitchen/backends/hip/*")
SEGMENT = 32 * MIB  # compressed by itself, so that several processors can do it; an .xz file may be several in a row
FILTERS = [{"id": lzma.FILTER_X86}, {"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": SEGMENT}]


@dataclass(frozen=True)
class Wheel:
    """One pinned package: its requirement, and the sha256 of the only file that is taken."""

    requirement: str
    sha256: str


WHEELS = (
    Wheel("comfy-kitchen==0.2.26", "028c91e909fea253e28d0e1eb2340d5a8652bc39546cdec53e38809b3c08c998"),
    Wheel("comfy-aimdo==0.4.11", "66e8fe783385b16b00128b86b00f1f9fe587269ae0196deb847c382f9db69c4f"),
    Wheel("fa3-fwd==0.0.3", "44d26c6cfc69dde5a0f9c6bebbccbb96ed20e97bc8b9ddda638b0bf62e91b93d"),
    Wheel("imageio-ffmpeg==0.6.0", "c7e46fcec401dd990405049d2e2f475e2b397779df2519b544b8aab515195282"),
    Wheel("torchsde==0.2.6", "19bf7ff02eec7e8e46ba1cdb4aa0f9db1c51d492524a16975234b467f7fc463b"),
    Wheel("trampoline==0.1.2", "36cc9a4ff9811843d177fc0e0740efbd7da39eadfe6e50c9e2937cbc06d899d9"),
)
PLATFORMS = ("manylinux2014_x86_64", *(f"manylinux_2_{version}_x86_64" for version in (28, 24, 17, 12)))
Entry = tuple[str, bytes, bool]  # name in the archive, content, whether it can be executed


def main(arguments: Sequence[str] | None = None) -> int:
    """Build the archive and try it; return 0 unless it is too large or an import fails."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.pack", description="Pack for a bare machine with PyTorch.")
    parser.add_argument("archive", type=Path, help="the file to write, a .tar.xz")
    parser.add_argument("--try-only", action="store_true", help="check and try an archive that is there")
    options = parser.parse_args(arguments)
    try:
        if not options.try_only:
            layout = Layout()
            tree = chosen_comfyui() or ensure_pinned_comfyui(layout)
            entries = [*tree_entries(tree), *(entry for wheel in download_wheels(layout) for entry in wheel_entries(wheel))]
            say_sizes(entries)
            write_archive(options.archive, entries)
        complaints = size_complaints(options.archive, tracked_bytes())
        with tempfile.TemporaryDirectory() as folder:
            unpack(options.archive, Path(folder))
            complaints += [complaint for trial in trials() for complaint in trial.complaints(Path(folder))]
    except SetupError as error:
        complaints = [str(error)]
    for complaint in complaints:
        say(f"error: {complaint}")
    return int(bool(complaints))


def download_wheels(layout: Layout) -> list[Path]:
    """Return the pinned wheels, downloaded by pip, which refuses any other content.

    Raises:
        SetupError: pip failed, or a file is another one.
    """
    folder = layout.downloads / "gpu"
    folder.mkdir(parents=True, exist_ok=True)
    wanted = folder / "wheels.txt"
    wanted.write_text("".join(f"{wheel.requirement} --hash=sha256:{wheel.sha256}\n" for wheel in WHEELS), encoding="utf-8")
    if any(_wheel_file(folder, wheel) is None for wheel in WHEELS):
        say("downloading the wheels (103 MB)")
        target = ["--python-version", "3.12", "--implementation", "cp", "--only-binary=:all:"]
        target += [option for platform in PLATFORMS for option in ("--platform", platform)]
        command = ["download", "--no-deps", "--require-hashes", *target, "-r", str(wanted), "-d", str(folder)]
        pip(layout, command, python=Path(sys.executable))
    found = []
    for wheel in WHEELS:
        path = _wheel_file(folder, wheel)
        if path is None:
            raise SetupError(f"pip downloaded no file for {wheel.requirement} to {folder}")
        check_sha256(path, wheel.sha256)
        found.append(path)
    return found


def _wheel_file(folder: Path, wheel: Wheel) -> Path | None:
    name, _, version = wheel.requirement.partition("==")
    return next(folder.glob(f"{name.replace('-', '_')}-{version}-*.whl"), None)


def tree_entries(tree: Path) -> Iterator[Entry]:
    """Yield the files of a ComfyUI tree that its model code needs."""
    for top in TREE:
        path = tree / top
        if not path.exists():
            raise SetupError(f"{tree} has no {top}: this script knows ComfyUI 0.30 to 0.33")
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            name = file.relative_to(tree).as_posix()
            if file.is_file() and not _is_left_out(name):
                yield f"ComfyUI/{name}", file.read_bytes(), False


def wheel_entries(wheel: Path) -> Iterator[Entry]:
    """Yield the files of a wheel; ffmpeg can be executed."""
    with zipfile.ZipFile(wheel) as archive:
        for name in sorted(archive.namelist()):
            if not name.endswith("/") and not _is_left_out(name):
                yield f"site/{name}", archive.read(name), "/binaries/ffmpeg" in name


def _is_left_out(name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in LEFT_OUT)


def say_sizes(entries: Sequence[Entry]) -> None:
    """Tell the size of each part before it is compressed."""
    sizes: dict[str, int] = {}
    for name, content, _ in entries:
        part = "/".join(name.split("/")[:2]) if name.startswith("site/") else "ComfyUI"
        sizes[part] = sizes.get(part, 0) + len(content)
    for part, size in sorted(sizes.items(), key=lambda item: -item[1]):
        if size > 100_000:
            say(f"{size / MIB:7.1f} MiB  {part}")


def write_archive(path: Path, entries: Sequence[Entry]) -> None:
    """Write a .tar.xz of equal bytes for equal entries; files of one kind are neighbours, which makes it smaller."""
    say(f"compressing {sum(len(content) for _, content, _ in entries) / MIB:.0f} MiB")
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as tar:
        for name, content, executable in sorted(entries, key=lambda entry: (Path(entry[0]).suffix, entry[0])):
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o755 if executable else 0o644
            tar.addfile(member, io.BytesIO(content))
    data = whole.getvalue()
    segments = [data[start : start + SEGMENT] for start in range(0, len(data), SEGMENT)]
    staging = path.with_name(f"{path.name}.partial")
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as processes, staging.open("wb") as file:
        for compressed in processes.map(_compress, segments):
            file.write(compressed)
    staging.replace(path)


def _compress(segment: bytes) -> bytes:
    return lzma.compress(segment, format=lzma.FORMAT_XZ, filters=FILTERS)


def size_complaints(archive: Path, tracked: int) -> list[str]:
    """Tell the sizes; return what is too large to travel."""
    size = archive.stat().st_size
    together = size + tracked
    say(f"{archive} has {size / MIB:.1f} MiB; {together / MIB:.1f} with the tracked files, but for {', '.join(LEFT_AT_HOME)}")
    complaints = []
    if size > MAX_ARCHIVE:
        complaints.append(f"the archive has {size / MIB:.1f} MiB, {MAX_ARCHIVE / MIB:.0f} are allowed: leave more out")
    if together > MAX_TOGETHER:
        complaints.append(f"{together / MIB:.1f} MiB would travel, {MAX_TOGETHER / MIB:.0f} are allowed: leave more out")
    return complaints


def tracked_bytes() -> int:
    """Return the bytes of the files that git tracks and that travel."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    names = [name for name in listed.split("\0") if name and not name.startswith(LEFT_AT_HOME)]
    return sum((REPOSITORY / name).lstat().st_size for name in names if (REPOSITORY / name).exists())


def unpack(archive: Path, folder: Path) -> None:
    """Unpack the archive as README.md says, with nothing but Python."""
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    if shutil.disk_usage(folder).free < MIB:
        raise SetupError(f"{folder} is full")


if __name__ == "__main__":
    sys.exit(main())
