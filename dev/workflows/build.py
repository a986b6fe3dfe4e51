"""Write the workflows of workflows/ from a compact description.

    python -m dev.environment --extra test --run -m dev.workflows.build [http://127.0.0.1:8188]

The address is that of a running ComfyUI with this pack in it; without one, one is started. Only the order and the types
of node inputs are taken from it. The demo's workflow is written a second time, in API format, to demo/ (by comfy-cli,
which the tests' environment has). A test holds that the committed files are what this gives.
"""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Callable, Mapping

from dev.environment import REPOSITORY
from dev.object_info import read_object_info
from dev.workflows.dance import dance_loop
from dev.workflows.demo import DEMO, tiny_demo
from dev.workflows.film import film_loop
from dev.workflows.graph_layout import GraphLayout, ObjectInfo
from dev.workflows.pro import extend_2_0_pro, long_story, loop_2_0_pro, processed_2_0_pro, reroll_2_0_pro, unrolled_2_0_pro
from dev.workflows.shot import shot_loop
from dev.workflows.story import story_2_0_pro
from dev.workflows.talk import talk_loop
from dev.workflows.version_2 import loop_2_0_wan21, loop_2_0_wan22

FOLDER = REPOSITORY / "workflows"
DEMO_API_FILE = REPOSITORY / "demo" / "demo_workflow_api.json"

WORKFLOWS: Mapping[str, Callable[[GraphLayout], None]] = {
    "svi_2.0_pro_wan2.2_loop": loop_2_0_pro,
    "svi_2.0_pro_wan2.2_unrolled": unrolled_2_0_pro,
    "svi_2.0_pro_wan2.2_long_story": long_story,
    "svi_2.0_pro_wan2.2_extend": extend_2_0_pro,
    "svi_2.0_pro_wan2.2_reroll": reroll_2_0_pro,
    "svi_2.0_pro_wan2.2_processed": processed_2_0_pro,
    "svi_2.0_pro_wan2.2_story": story_2_0_pro,
    "svi_2.0_wan2.2_loop": loop_2_0_wan22,
    "svi_2.0_wan2.1_loop": loop_2_0_wan21,
    "svi_shot_wan2.1_loop": shot_loop,
    "svi_film_wan2.1_loop": film_loop,
    "svi_dance_wan2.1_loop": dance_loop,
    "svi_talk_wan2.1_loop": talk_loop,
    "svi_tiny_demo": tiny_demo,
}
_GRAPH_NAMESPACE = uuid.UUID("5c1f6f0e-0b0e-4d52-9a51-2d6f1f5c1a00")


def build(name: str, object_info: ObjectInfo) -> str:
    """Return the text of workflow file `name`."""
    graph = GraphLayout(str(uuid.uuid5(_GRAPH_NAMESPACE, name)), object_info)
    WORKFLOWS[name](graph)
    return json.dumps(graph.to_json(), indent=1, ensure_ascii=False) + "\n"


def build_demo_api(object_info: ObjectInfo) -> str:
    """Return the text of the demo's workflow in API format."""
    from comfy_cli.workflow_to_api import convert_ui_to_api

    graph = convert_ui_to_api(json.loads(build(DEMO, object_info)), dict(object_info))
    return json.dumps(graph, indent=1, ensure_ascii=False) + "\n"


def main(url: str | None = None) -> None:
    """Write all workflows, asking the ComfyUI at `url` what its nodes are."""
    object_info = read_object_info(url)
    for name in WORKFLOWS:
        (FOLDER / f"{name}.json").write_text(build(name, object_info), encoding="utf-8")
    DEMO_API_FILE.write_text(build_demo_api(object_info), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
