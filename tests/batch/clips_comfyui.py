"""A ComfyUI tree without models: its server makes clips as files, one by one, and goes on with those that are there."""

import argparse
import asyncio
import hashlib
import os
import textwrap
from pathlib import Path

from aiohttp import web
from filelock import FileLock, Timeout

from comfyui.environment import REPOSITORY
from tests.batch.fake_comfyui import FakeComfyUI

CLIP_SECONDS = 0.2
HOLD = "hold"  # while this file is in the output folder, no story gets more than its first clip


class ClipsComfyUI(FakeComfyUI):
    """Each clip follows from the one before it, the seed and the prompt; `made.txt` of a run has a line for each one made.

    As with ours, one process at a time works on a run.
    """

    def __init__(self, output: Path, port: int = 0, clip_seconds: float = CLIP_SECONDS) -> None:
        self.output, self.clip_seconds = output, clip_seconds
        super().__init__(port=port)

    async def _execute(self, key: str, graph: dict, outcome: str) -> None:
        run = self.output / graph["4"]["inputs"]["filename_prefix"]
        (run / "clips").mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(run / ".lock", timeout=0):
                await self._make(key, graph, run)
        except Timeout:
            self.end(key, "in use", graph)
            await self._send("executing", key, node=None)

    async def _make(self, key: str, graph: dict, run: Path) -> None:
        inputs = graph["4"]["inputs"]
        content = f"{inputs['seed']} {graph['3']['inputs']['text']}".encode()
        clips = []
        for number in range(inputs["num_clips"]):
            content = hashlib.sha256(content).digest()
            clip = run / "clips" / f"{number}.latent"
            if not clip.exists():
                await asyncio.sleep(self.clip_seconds)
                while number and (self.output / HOLD).exists():
                    await asyncio.sleep(0.05)
                if key not in self.running:  # interrupted
                    return
                clip.with_suffix(".staging").write_bytes(content)
                clip.with_suffix(".staging").rename(clip)
                with (run / "made.txt").open("a") as made:
                    made.write(f"{number} {os.getppid()}\n")
            assert clip.read_bytes() == content
            clips.append(content)
            await self._send(
                "progress_state", key, nodes={"4": {"value": number + 1, "max": inputs["num_clips"], "state": "running"}}
            )
        saved = self.output / f"{graph['5']['inputs']['filename_prefix']}_00001_.mp4"
        saved.parent.mkdir(parents=True, exist_ok=True)
        saved.write_bytes(b"".join(clips))
        saved.with_name("row.png").write_bytes(b"")
        self.end(key, "ok", graph)
        await self._send("executing", key, node=None)

    async def _view(self, request: web.Request) -> web.Response:
        return web.Response(body=(self.output / request.query["subfolder"] / request.query["filename"]).read_bytes())


def make_tree(folder: Path) -> Path:
    """Write a tree whose main.py serves a ClipsComfyUI, and return it."""
    folder.mkdir(parents=True)
    (folder / "models").mkdir()
    (folder / "custom_nodes" / "this_pack" / "svi_core").mkdir(parents=True)
    program = f"""
        import sys
        sys.path.insert(0, {str(REPOSITORY)!r})
        from tests.batch.clips_comfyui import main
        main()
    """
    (folder / "main.py").write_text(textwrap.dedent(program))
    return folder


def main() -> None:
    """Serve until this process is killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int)
    parser.add_argument("--output-directory", type=Path)
    options, _ = parser.parse_known_args()
    ClipsComfyUI(options.output_directory, options.port).thread.join()
