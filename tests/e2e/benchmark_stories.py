"""Two small stories of each benchmark that the tiny models can make, twelve together, as a table for the batch command."""

import json
import shutil
from pathlib import Path

from batch import make_table
from batch.arguments import command_line
from comfyui.server import ComfyServer
from tests.conftest import REPOSITORY
from tests.e2e.tiny_talk_models import WAN21_TALK

CLIPS = 2
FRAMES = {"consistent": 2 * 12 + 1, "creative": 2 * 8 + 5, "talk": 2 * 12 + 1, "dance": 20}
WORKFLOW = REPOSITORY / "workflows" / "Unfolded Shot.json"
_WORKFLOW_OF = {  # as in the paper: Shot is consistent, Film creative
    "consistent-50s": "Unfolded Shot",
    "consistent-250s": "Unfolded Shot",
    "creative-50s": "Unfolded Film",
    "creative-250s": "Unfolded Film",
    "talk-300s": "Unfolded Talk",
    "dance-50s": "Unfolded Dance",
}
_SMALL = {
    "SVI Anchor Encode.width": 64,
    "SVI Anchor Encode.height": 64,
    "SVI Layout.num_frames": 13,
    "BasicScheduler.steps": 2,
}


def write_table(server: ComfyServer, image: Path, folder: Path) -> tuple[Path, list[str]]:
    """Write the table into `folder`, with `image` and the sound and poses of a `workflow_server`; return it and the names."""
    photos, inputs = folder / "photos", server.base_directory / "input"
    photos.mkdir()
    for name in ("young_woman", "old_man"):
        for source, suffix in ((image, ".png"), (inputs / "speech.wav", ".wav"), (inputs / "pose.mp4", ".mp4")):
            shutil.copyfile(source, photos / f"{name}{suffix}")
    rows = []
    for benchmark, name in _WORKFLOW_OF.items():
        file = folder / f"{benchmark}.jsonl"
        size = ["--samples", "2", "--clips", str(CLIPS)]
        assert make_table.main(command_line().parse_args(["table", benchmark, str(photos), "--output", str(file), *size])) == 0
        extra = _SMALL | {"workflow": str(REPOSITORY / "workflows" / f"{name}.json")}
        if name == "Unfolded Talk":
            extra["Load Diffusion Model.unet_name"] = WAN21_TALK
        rows += [json.loads(line) | extra for line in file.read_text().splitlines()]
    table = folder / "stories.jsonl"
    table.write_text("\n".join(json.dumps(row) for row in rows))
    names = [row["name"] for row in rows]
    assert len(set(names)) == 12
    return table, names


def num_frames(name: str) -> int:
    """Return how many frames the video of a story has."""
    return FRAMES[name.split("-")[0]]
