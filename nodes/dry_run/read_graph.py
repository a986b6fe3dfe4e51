"""Read a run from the queued graph without executing any node; values that other nodes make are listed as not known."""

from collections.abc import Iterator
from dataclasses import replace

import comfy.model_management
import torch

from ...svi_core.clips.clip_plan import ClipPlan, SeedMode
from ...svi_core.clips.continuation import VideoStart
from ...svi_core.clips.video_settings import VideoSettings
from ...svi_core.dry_run.requested_run import RequestedRun
from ...svi_core.schedule.spec import Schedule
from ...svi_core.store.takes import PinnedTakes
from ...svi_core.systems.layouts import Layout
from ...svi_core.video.seams import measured_seam
from ..bridge.control import earliest_end, frame_rate_of
from ..bridge.node_ids import GENERATE
from ..bridge.queued_graph import QueuedGraph, require_full_denoise
from ..bridge.run_path import run_path
from ..bridge.vaes import DecodeTiles, hand_over_warnings
from ..conditioning import SVINamedAnchor, anchor_name
from ..generate import SVIGenerate
from ..lora import NONE
from ..output import hash_of_clips
from .graph_reader import GraphReader
from .read_controls import read_controls
from .read_models import read_experts, read_layout, read_model_files, read_rows
from .read_schedule import read_doubts, read_num_clips, read_schedule
from .read_video import read_cfg, read_num_steps, read_output, read_size, read_start


def read_requested_run(prompt: dict, plan_id: str, plan_only: bool) -> RequestedRun:
    """Return the run whose video enters the SVI Plan `plan_id`.

    Args:
        plan_only: widget of that node; if on, warn of nodes that would start the run.

    Raises:
        ValueError: an input that the run would refuse, or clips that depend on values of other nodes.
    """
    graph = QueuedGraph(prompt)
    link = graph.link(plan_id, "video")
    loops = [node for node in graph.upstream(link.node_id) if graph.class_of(node) == GENERATE] if link else []
    if not loops:
        raise ValueError("video does not come from SVI Generate: connect its video output, directly or through other nodes.")
    run = read_loop(GraphReader(graph), loops[0])
    return replace(run, remarks=(*_results_past(graph, loops[0], plan_id), *run.remarks)) if plan_only else run


def read_loop(reader: GraphReader, loop: str) -> RequestedRun:
    """Return the run that the SVI Generate `loop` describes.

    Raises:
        ValueError: see :func:`read_requested_run`.
    """
    run = _read_run(reader, loop)
    if run.folder is None:
        return run
    takes = PinnedTakes(run.folder, run.size and (run.size[1] // 8, run.size[0] // 8))
    return replace(run, plan=replace(run.plan, takes=takes))


def _read_run(reader: GraphReader, loop: str) -> RequestedRun:
    """Return the run that the SVI Generate `loop` describes, with takes that are not looked up."""
    require_full_denoise(reader.graph, loop)
    schedule, until_stopped = read_schedule(reader, loop)
    output, asked_start = read_output(reader, loop), read_start(reader, loop)
    start = asked_start if isinstance(asked_start, VideoStart) else None
    controls = list(read_controls(reader, loop))
    num_clips = len(schedule) if until_stopped else read_num_clips(reader, loop, schedule, controls)
    rows = read_rows(reader, loop)
    metadata, files = read_model_files(reader, loop)
    experts = read_experts(reader, loop, rows, metadata)
    layout = read_layout(reader, loop, experts)
    frame_rate = frame_rate_of(layout, controls)
    seed = reader.known(loop, SVIGenerate, lambda seed: seed)
    plan = ClipPlan(
        num_clips,
        schedule,
        layout,
        seed=0 if seed is None else seed,
        seed_mode=reader.required(loop, SVIGenerate, lambda seed_mode: SeedMode(seed_mode)),  # noqa: PLW0108 (it names the widget)
        graph_hash=hash_of_clips(reader.graph, loop, layout, output),
        seam=output.seam or measured_seam(layout),
        continues=start.plan_key if start else asked_start,
        num_clips_before=start.num_clips_made if start else 0,
    )
    num_start_frames = start.num_frames if start else 0
    is_start_known = start is not None or not asked_start
    size = read_size(reader, loop)
    if start and size:
        start.require_clip_size(*size)
    is_seed_known = seed is not None and (is_start_known or plan.seed_mode is SeedMode.FIXED)
    first_key = plan.first_key if is_seed_known and is_start_known else None
    return RequestedRun(
        plan=plan,
        num_listed=len(schedule),
        coding=VideoSettings(replace(output.coding, frame_rate=frame_rate), start=start).clip_coding,
        max_frames=earliest_end(output.max_frames(start, frame_rate), num_start_frames, controls),
        num_start_frames=num_start_frames,
        start_seconds=start.seconds if start else 0.0,
        until_stopped=until_stopped,
        is_seed_known=is_seed_known,
        is_start_known=is_start_known,
        cfg=read_cfg(reader, loop),
        num_extra_passes=sum(control.num_extra_passes for control in controls),
        num_steps=read_num_steps(reader, loop),
        size=size,
        folder=reader.known(
            loop, SVIGenerate, lambda filename_prefix: run_path(filename_prefix, reader.graph, loop, size, first_key)
        ),
        experts=experts,
        files=files,
        anchors=tuple(_anchor_names(reader, loop)),
        lora_rows=tuple(name for row in rows for name, _ in row.sides if name != NONE),
        value_bytes=comfy.model_management.intermediate_dtype().itemsize,
        not_known=tuple(dict.fromkeys(reader.not_known)),
        remarks=tuple(_remarks(reader, loop, schedule, layout, output.tiles)),
    )


def _anchor_names(reader: GraphReader, loop: str) -> Iterator[str]:
    names = (reader.known(node, SVINamedAnchor, anchor_name) for node in reader.graph.chain(loop, "anchors"))
    return (name for name in names if name is not None)


def _results_past(graph: QueuedGraph, loop: str, plan_id: str) -> Iterator[str]:
    """Yield a warning for each node that uses a result of the run directly, past SVI Plan."""
    for node in graph.other_users(loop, besides=set(graph.upstream(plan_id))):
        yield (
            f"{graph.title(node)} is connected to SVI Generate, not to SVI Plan: if a result depends on it, the run "
            "starts although plan_only is on."
        )


def _remarks(reader: GraphReader, loop: str, schedule: Schedule, layout: Layout, tiles: DecodeTiles) -> Iterator[str]:
    yield from read_doubts(reader, loop)
    yield from _vae_warnings(layout, tiles)
    yield from _guider_warnings(reader.graph, loop, schedule)


def _guider_warnings(graph: QueuedGraph, loop: str, schedule: Schedule) -> Iterator[str]:
    """Yield a warning if the schedule sets cfg for clips that a guider may have no single cfg for."""
    link = graph.link(loop, "guider")
    if link is None or graph.class_of(link.node_id) == "CFGGuider":
        return
    if any(schedule.at(index).cfg is not None for index in range(len(schedule))):
        yield f"the schedule sets cfg, but {graph.title(link.node_id)} guides: the run is refused if it has no single cfg."


def _vae_warnings(layout: Layout, tiles: DecodeTiles) -> Iterator[str]:
    """Yield a warning if ComfyUI would run the VAE in low precision or in tiles; this does not load it."""
    working_dtypes = [torch.bfloat16, torch.float16, torch.float32]  # of Wan's VAE
    dtype = comfy.model_management.vae_dtype(comfy.model_management.vae_device(), working_dtypes)
    return hand_over_warnings(layout, dtype, tiles)
