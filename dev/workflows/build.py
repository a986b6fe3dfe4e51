"""Write the workflows of workflows/, the blueprints of subgraphs/ and the demo's workflow from compact descriptions.

    python -m dev.environment --extra test --run -m dev.workflows.build [http://127.0.0.1:8188]

The address is that of a running ComfyUI with this pack in it; without one, one is started. Only the order and the types
of node inputs are taken from it. The demo's workflow is written a second time, in API format (by comfy-cli, which the
tests' environment has). A test holds that the committed files are what this gives.
"""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

from dev.environment import REPOSITORY
from dev.object_info import read_object_info
from dev.workflows.dance import DANCE, dance_loop
from dev.workflows.demo import DEMO, tiny_demo
from dev.workflows.film import FILM, film_loop
from dev.workflows.five_nodes import System, blueprint, five_nodes
from dev.workflows.graph_layout import GraphLayout, ObjectInfo
from dev.workflows.pro import (
    PRO,
    extend_2_0_pro,
    long_story,
    loop_2_0_pro,
    processed_2_0_pro,
    reroll_2_0_pro,
    unrolled_2_0_pro,
)
from dev.workflows.shot import SHOT, shot_loop
from dev.workflows.story import story_2_0_pro
from dev.workflows.talk import TALK, talk_loop
from dev.workflows.version_2 import VERSION_2, loop_2_0_wan21, loop_2_0_wan22

FOLDER = REPOSITORY / "workflows"
BLUEPRINT_FOLDER = REPOSITORY / "subgraphs"  # the name that ComfyUI looks for
DEMO_FOLDER = REPOSITORY / "demo"
DEMO_API_FILE = DEMO_FOLDER / "demo_workflow_api.json"

TEMPLATES: Mapping[str, Callable[[GraphLayout], None]] = {  # in the order in which the template browser lists them
    "1 Long video from one image": five_nodes(PRO),
    "2 Long story with cuts": long_story,
    "3 Story from a subject": story_2_0_pro,
    "4 Continue a video": extend_2_0_pro,
    "5 Redo one clip": reroll_2_0_pro,
    "6 Upscale each clip": processed_2_0_pro,
    "SVI 2.0 - one scene with much motion": five_nodes(VERSION_2),
    "SVI Dance - follow a pose video": five_nodes(DANCE),
    "SVI Film - several scenes": five_nodes(FILM),
    "SVI Shot - one scene of any length": five_nodes(SHOT),
    "SVI Talk - speak a sound file": five_nodes(TALK),
    "Unfolded 2.0 Pro": loop_2_0_pro,
    "Unfolded 2.0 on Wan 2.1": loop_2_0_wan21,
    "Unfolded 2.0 on Wan 2.2": loop_2_0_wan22,
    "Unfolded Dance": dance_loop,
    "Unfolded Film": film_loop,
    "Unfolded Shot": shot_loop,
    "Unfolded Talk": talk_loop,
    "Unrolled into stock samplers": unrolled_2_0_pro,
}
WORKFLOWS: Mapping[str, Callable[[GraphLayout], None]] = {**TEMPLATES, DEMO: tiny_demo}
BLUEPRINTS: Mapping[str, System] = {system.name: system for system in (PRO, VERSION_2, SHOT, FILM, TALK, DANCE)}
_GRAPH_NAMESPACE = uuid.UUID("5c1f6f0e-0b0e-4d52-9a51-2d6f1f5c1a00")


def file_of(name: str) -> Path:
    """Return the file of workflow `name`: a template's, or the demo's, which needs the models beside it."""
    return (DEMO_FOLDER if name == DEMO else FOLDER) / f"{name}.json"


def build(name: str, object_info: ObjectInfo) -> str:
    """Return the text of workflow file `name`."""
    graph = GraphLayout(str(uuid.uuid5(_GRAPH_NAMESPACE, name)), object_info)
    WORKFLOWS[name](graph)
    return _text(graph.to_json())


def build_blueprint(name: str, object_info: ObjectInfo) -> str:
    """Return the text of blueprint file `name`."""
    return _text(blueprint(BLUEPRINTS[name], object_info))


def build_demo_api(object_info: ObjectInfo) -> str:
    """Return the text of the demo's workflow in API format."""
    from comfy_cli.workflow_to_api import convert_ui_to_api

    graph = convert_ui_to_api(json.loads(build(DEMO, object_info)), dict(object_info))
    return _text(graph)


def _text(content: object) -> str:
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def main(url: str | None = None) -> None:
    """Write all workflows, asking the ComfyUI at `url` what its nodes are."""
    object_info = read_object_info(url)
    for name in WORKFLOWS:
        file_of(name).write_text(build(name, object_info), encoding="utf-8")
    for name in BLUEPRINTS:
        (BLUEPRINT_FOLDER / f"{name}.json").write_text(build_blueprint(name, object_info), encoding="utf-8")
    DEMO_API_FILE.write_text(build_demo_api(object_info), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
