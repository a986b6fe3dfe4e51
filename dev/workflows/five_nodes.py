"""The systems as they are first seen: a template of few nodes, in which one holds models, LoRAs and sampling, and a blueprint.

A template has the prompts on the page, since its text is the story. A blueprint, which is dropped into a user's own graph,
holds them too.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dev.workflows.graph_layout import GraphLayout, Group, ObjectInfo
from dev.workflows.graph_nodes import Node, Socket
from dev.workflows.parts import (
    EXAMPLE_IMAGE,
    MODELS,
    PROMPTS,
    REFERENCE,
    SAMPLING,
    VIDEO,
    anchor_encode,
    generate_only,
    show_video,
    text_encoder,
    wan_vae,
)
from dev.workflows.subgraph import Subgraph
from dev.workflows.texts import note
from dev.workflows.weight_files import weight_files

Links = dict[str, Any]
_NAMESPACE = uuid.UUID("5c1f6f0e-0b0e-4d52-9a51-2d6f1f5c1a01")
README_HEIGHT, DOWNLOADS_HEIGHT = 420, 400  # of the notes, in the newer renderer
FILES = {  # widgets that name a weight file, by node type
    "UNETLoader": ("unet_name",),
    "SVILora": ("lora", "lora_low_noise"),
    "SVILoraPreset": ("lora", "lora_low_noise"),
    "VAELoader": ("vae_name",),
    "CLIPLoader": ("clip_name",),
    "CLIPVisionLoader": ("clip_name",),
    "AudioEncoderLoader": ("audio_encoder_name",),
    "ModelPatchLoader": ("name",),
    "SVIDance": ("lora",),
}


@dataclass(frozen=True)
class System:
    """One SVI system with the settings of its workflow.

    Attributes:
        name: of the node that holds it.
        description: what it makes, for the node library.
        models: adds models and LoRAs; returns them as links of SVI Generate.
        sampling: adds sampler, steps and layout to a group, for a model; returns them likewise.
        size: of the video in pixels.
        note: of the template.
        files: weight files that it loads.
        condition: adds sound or poses; returns the links that they change.
        source: what the condition reads, as (socket, its type, node that loads it, the values of that node).
    """

    name: str
    description: str
    models: Callable[[GraphLayout], Links]
    sampling: Callable[[Group, Node], Links]
    text: str
    negative: str
    prefix: str
    note: str
    files: tuple[str, ...]
    settings: Mapping[str, float]
    size: tuple[int, int] = (832, 480)
    condition: Callable[[GraphLayout, Socket, Links], Links] | None = None
    source: tuple[str, str, str, Mapping[str, Any]] | None = None
    aliases: tuple[str, ...] = field(default=("long video", "infinite video", "stable video infinity", "svi"))


def five_nodes(system: System) -> Callable[[GraphLayout], None]:
    """Return the description of a system's template: picture, prompts, one node that makes the video, and the video."""

    def describe(graph: GraphLayout) -> None:
        given = graph.column(370).group()
        links: Links = {"image": given.add("LoadImage", preview_height=260, image=EXAMPLE_IMAGE)}
        links["clip"] = text_encoder(given)
        given.note("Read me", note(system.note), README_HEIGHT)
        width, height = (340, 160) if system.source else (420, 520)  # the source stands below the prompts
        words = graph.column(width).group()
        prompts = words.add("SVIPromptStream", text_height=height, clip=links["clip"], text=system.text, split="paragraphs")
        links["prompts"] = prompts
        if system.source:
            socket, _, loader, values = system.source
            links[socket] = words.add(loader, **values)
        else:
            links["num_clips"] = prompts["num_prompts"]
        made = graph.column(400).group()
        video = _inside(system, graph.object_info, graph.graph_id, holds_prompts=False).node(made, **links)
        made.note("Downloads", weight_files(*system.files), DOWNLOADS_HEIGHT)
        show_video(graph.column(400).group(), video)

    return describe


def blueprint(system: System, object_info: ObjectInfo) -> dict[str, Any]:
    """Return the file of a system's blueprint."""
    graph = GraphLayout(str(uuid.uuid5(_NAMESPACE, f"{system.name}/blueprint")), object_info)
    inside = _inside(system, object_info, graph.graph_id, holds_prompts=True)
    inside.node(graph.column(420).group(), text_height=200)
    content = graph.to_json()
    content["extra"] = {"workflowRendererVersion": "LG", "BlueprintDescription": system.description}
    content["extra"]["BlueprintSearchAliases"] = list(system.aliases)
    return content


def _inside(system: System, object_info: ObjectInfo, outer_id: str, *, holds_prompts: bool) -> Subgraph:
    """Return models, LoRAs, sampling and SVI Generate of a system as a subgraph."""
    key = str(uuid.uuid5(uuid.UUID(outer_id), system.name))
    graph = Subgraph(system.name, key, object_info, system.description, "Video generation and editing/Long video")
    picture = graph.socket("image", "IMAGE")
    source = graph.socket(*system.source[:2]) if system.source else None
    clip: Any = None if holds_prompts else graph.socket("clip", "CLIP")
    told: Any = None if holds_prompts else graph.socket("prompts", "SVI_PROMPTS")
    links = system.models(graph)
    middle = graph.column(400)
    encoders = middle.group("VAE" if clip else "Text encoder and VAE", MODELS)
    clip = clip or text_encoder(encoders)
    vae = wan_vae(encoders)
    anchor = anchor_encode(middle.group("Reference image", REFERENCE), vae, picture, system.size)
    words = graph.column(460).group("Prompts" if holds_prompts else "Negative prompt", PROMPTS)
    stream = None
    if holds_prompts:
        stream = words.add("SVIPromptStream", text_height=290, clip=clip, text=system.text, split="paragraphs")
        links["num_clips"] = stream["num_prompts"]
    links["negative"] = words.add("CLIPTextEncode", title="Negative prompt", text_height=170, clip=clip, text=system.negative)
    links |= {"vae": vae, "anchor": anchor, "prompts": stream or told}
    links |= system.sampling(graph.column(460).group("Sampling", SAMPLING), links["model"])
    if system.condition and source:
        links |= system.condition(graph, source, links)
    settings = {"num_clips": 3} | dict(system.settings)
    settings = {name: value for name, value in settings.items() if name not in links}
    video = generate_only(graph.column(520).group("Video", VIDEO), links, system.prefix, **settings)
    _promote(graph, video, anchor, stream)
    graph.give("video", video["video"])
    return graph


def _promote(graph: Subgraph, video: Node, anchor: Node, stream: Node | None) -> None:
    """Show on the outside what people change: the prompts, length, seed, size, folder and the weight files."""
    if stream:
        graph.promote(stream, "text")
    for node, names in ((video, ("num_clips", "seed")), (anchor, ("width", "height")), (video, ("filename_prefix",))):
        for name in names:
            if name not in node.links:
                graph.promote(node, name)
    named: dict[str, list[tuple[Node, str]]] = {}
    for node in graph.nodes:
        for widget in FILES.get(node.type, ()):
            if node.values[widget] != "none":
                named.setdefault(_file_name(node, widget), []).append((node, widget))
    for name, places in named.items():
        graph.promote(*places[0], name=name, also=places[1:])


def _file_name(node: Node, widget: str) -> str:
    """Return what a widget that names a weight file is called on the outside."""
    if node.type == "UNETLoader":
        return {"High-noise expert": "high_noise_model", "Low-noise expert": "low_noise_model"}.get(node.title or "", "model")
    if node.type in ("SVILora", "SVILoraPreset"):
        kind = "lightx2v_lora" if "LightX2V" in (node.title or "") else "svi_lora"
        expert = "low_noise" if widget == "lora_low_noise" else "high_noise"
        return kind if node.values["lora_low_noise"] == "none" else f"{kind}_{expert}"
    names = {"CLIPLoader": "text_encoder", "VAELoader": "vae", "CLIPVisionLoader": "clip_vision", "SVIDance": "svi_lora"}
    return names.get(node.type) or {"AudioEncoderLoader": "audio_encoder", "ModelPatchLoader": "multitalk"}[node.type]
