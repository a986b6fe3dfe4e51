"""Answer POST /svi/plan: a queued graph as the header and the cards of a storyboard. And GET /svi/takes."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ...svi_core.dry_run.run_estimate import RunEstimate, estimate_run
from ...svi_core.dry_run.storyboard import CardState, StoryCard, dropped_cards, story_cards
from ...svi_core.store.finished_clips import read_finished
from ...svi_core.store.keep_marks import kept_keys
from ...svi_core.store.records import ClipRecord, read_last_video, read_records
from ...svi_core.store.takes import takes_by_index
from ..bridge.clip_times import earlier_times
from ..bridge.node_ids import GENERATE
from ..bridge.queued_graph import QueuedGraph
from ..bridge.routes import Asked, asked_folder, described_error, run_name
from ..clip_sampler import MAIN_ANCHOR
from .asked_run import UNCHECKED, AskedRun, asked_graph, read_asked_run, unreadable
from .pictures import address, known_badges
from .places import Place, places
from .source import find_source


def plan(asked: Asked) -> dict:
    """Return a queued graph as a storyboard; mistakes inside the graph are part of the answer.

    Raises:
        ValueError: a bad request.
    """
    graph, loop = asked_graph(asked)
    try:
        source = find_source(graph, loop) if loop else None
    except UNCHECKED as error:
        raise unreadable(error) from error
    reply = {
        "node": loop,
        "nodes": [{"id": node, "title": _title(graph, node)} for node in graph.of_class(GENERATE)],
        "source": source and source.as_dict(),
        "header": None,
        "cards": [],
        "warnings": [],
        "not_known": [],
        "errors": [],
    }
    try:
        found = read_asked_run(asked)
        estimate = estimate_run(found.run, earlier_times())
        board = _board(found, estimate, source.text if source else "", source.split if source else "")
    except (ValueError, OSError, *UNCHECKED) as error:
        described = described_error(unreadable(error) if isinstance(error, UNCHECKED) else error)
        node = source.node if source and described["line"] else loop
        return {
            **reply,
            "errors": [{"message": described["error"], "line": described["line"], "column": described["column"], "node": node}],
        }
    errors = [{"message": text, "line": None, "column": None, "node": loop} for text in found.missing_takes.values()]
    return {**reply, **board, "errors": errors}


def list_takes(asked: Asked) -> dict:
    """Return the stored clips that were made for place `index` of the run `run`, in the order they were made.

    Raises:
        ValueError: a bad name or number.
    """
    folder = asked_folder(asked)
    index = str(asked.get("index"))
    if not (index.isascii() and index.isdigit() and len(index) < 6):
        raise ValueError(f"index is {index[:80]!r}: send the place of a clip, from 0.")
    files = RunFiles.of(folder)
    takes = takes_by_index(read_records(folder)).get(int(index), []) if folder.is_dir() else []
    return {
        "run": files.run,
        "index": int(index),
        "takes": [_take(files, number, take) for number, take in enumerate(takes, 1)],
    }


@dataclass(frozen=True)
class RunFiles:
    """What a run's folder holds beside its records.

    Attributes:
        folder: of the run.
        run: its name.
        finished: by key, the files that show the clips of the last run.
        shown: by place, the keys of these clips.
        kept: keys of protected clips.
        names: of the files in its folder of clips.
    """

    folder: Path
    run: str
    finished: Mapping[str, str]
    shown: Mapping[int, str]
    kept: frozenset[str]
    names: frozenset[str]

    @classmethod
    def of(cls, folder: Path) -> "RunFiles":
        """Return what `folder` holds."""
        clips = read_finished(folder)
        names = frozenset(path.name for path in (folder / "clips").iterdir()) if (folder / "clips").is_dir() else frozenset()
        finished, shown = {clip.key: clip.segment for clip in clips}, {clip.index: clip.key for clip in clips}
        return cls(folder, run_name(folder), finished, shown, frozenset(kept_keys(folder)), names)

    def frames_of(self, record: ClipRecord | None) -> str | None:
        """Return the name of the file that shows a clip; None if only its latent is stored."""
        if record is None:
            return None
        made = (f"{record.key}-{name}.mp4" for name in reversed(record.segments) if not name.startswith("processed"))
        return next((name for name in (self.finished.get(record.key), *made) if name in self.names), None)

    def view(self, name: str | None) -> dict | None:
        """Return the arguments of ComfyUI's /view for a file of a clip."""
        return None if name is None else {"filename": name, "subfolder": f"{self.run}/clips", "type": "output"}

    def picture(self, name: str | None) -> str | None:
        """Return the address of a clip's picture."""
        return None if name is None else address("/svi/picture", {"run": self.run, "file": name})


def _title(graph: QueuedGraph, node: str) -> str:
    title = (graph.nodes[node].get("_meta") or {}).get("title")
    return title if isinstance(title, str) else "SVI Generate"


def _board(found: AskedRun, estimate: RunEstimate, text: str, split: str) -> dict:
    """Return the header, the cards and the warnings of a storyboard."""
    run = estimate.run
    files = None if run.folder is None else RunFiles.of(run.folder)
    cards = [*story_cards(estimate, files.shown if files else {}), *([] if run.until_stopped else dropped_cards(run))]
    where = places(text, split, len(cards))
    first = files.frames_of(cards[0].shown) if files else None
    shown, before = [], None
    for index, (card, place) in enumerate(zip(cards, where, strict=True)):
        name = files.frames_of(card.shown) if files else None
        beside = {"first": first if index else None, "before": None if card.clip.request.starts_anew else before}
        shown.append(_card(found, card, place, files, name, beside))
        before = name
    counts = Counter(card.state for card in cards)
    return {
        "header": _header(found, estimate, files, counts),
        "cards": shown,
        "warnings": list(estimate.warnings),
        "not_known": list(run.not_known),
    }


def _header(found: AskedRun, estimate: RunEstimate, files: RunFiles | None, counts: Mapping[CardState, int]) -> dict:
    run = estimate.run
    try:
        video = read_last_video(run.folder) if run.folder else None
    except ValueError:  # a damaged manifest, which the next run sets aside
        video = None
    return {
        "run": files and files.run,
        "clips": len(estimate.clips),
        "listed": run.num_listed,
        "num_clips": found.num_clips,
        "until_stopped": run.until_stopped,
        "seconds": round(estimate.seconds, 3),
        "frames": estimate.num_frames,
        "frame_rate": run.coding.frame_rate,
        "size": run.size and list(run.size),
        **{state.value: counts.get(state, 0) for state in CardState},
        "to_make": len(estimate.new_clips),
        "work_seconds": estimate.work_seconds,
        "work_source": estimate.time and estimate.time.source,
        "anchors": [MAIN_ANCHOR, *(name for name in run.anchors if name != MAIN_ANCHOR)],
        "loras": list(run.lora_rows),
        "video": {"filename": video.name, "subfolder": files.run, "type": "output"} if video and files else None,
    }


def _card(found: AskedRun, card: StoryCard, place: Place, files: RunFiles | None, name: str | None, beside: Mapping) -> dict:
    """Return a card as the browser gets it; `name` is the file that shows it, `beside` those to compare it with."""
    clip, shown, index = card.clip, card.shown, card.clip.request.index
    facts: dict = {"picture": None, "preview": None, "look": None, "badges": []}
    if files and name:
        look = {"run": files.run, "file": name, **beside}
        paths = [None if beside[which] is None else files.folder / beside[which] for which in ("first", "before")]
        facts = {
            "picture": files.picture(name),
            "preview": files.view(name),
            "look": address("/svi/look", look),
            "badges": known_badges(files.folder / name, *paths) or [],
        }
    missing = found.missing_takes.get(index)
    pinned = place.take
    return {
        "index": index,
        "state": card.state.value,
        "reason": card.reason,
        "by_before": card.by_before,
        "prompt": clip.request.spec.prompt,
        "place": place.as_dict(),
        "set": place.options,
        "effective": _effective(found, card),
        "first_frame": clip.first_frame,
        "begin": round(clip.begin, 3),
        "frames": clip.num_frames,
        "seconds": round(clip.num_frames / found.run.coding.frame_rate, 3),
        "work_seconds": clip.seconds,
        "made_seconds": _made_seconds(shown),
        "key": shown and shown.key,
        **facts,
        "take": None
        if shown is None
        else {"number": card.number, "count": card.num_takes, "pinned": bool(pinned), "follows": card.follows},
        "pin": None if pinned is None else {"key": pinned, "found": missing is None, "message": missing or ""},
        "kept": bool(shown and files and shown.key in files.kept),
    }


def _effective(found: AskedRun, card: StoryCard) -> dict:
    request, spec = card.clip.request, card.clip.request.spec
    return {
        "seed": request.seed if found.run.is_seed_known or spec.seed is not None else None,
        "frames": request.layout.num_frames,
        "motion": request.layout.num_motion_frames,
        "cfg": found.run.cfg_of(request),
        "anchor": spec.anchor or MAIN_ANCHOR,
        "loras": [{"name": lora.name, "high": lora.high, "low": lora.low} for lora in spec.loras],
        "seam": request.seam.value,
        "cut": spec.cut,
        "end": spec.end,
        "hold": spec.hold,
        "take": spec.take,
    }


def _made_seconds(record: ClipRecord | None) -> float | None:
    if record is None or "sample_seconds" not in record.measures:
        return None
    return round(record.measures["sample_seconds"] + record.measures.get("decode_seconds", 0.0), 3)


def _take(files: RunFiles, number: int, record: ClipRecord) -> dict:
    name = files.frames_of(record)
    return {
        "number": number,
        "key": record.key,
        "prompt": record.prompt,
        "seed": record.seed,
        "options": record.options,
        "parent": record.parent,
        "made": record.made or None,
        "seconds": _made_seconds(record) or 0,
        "shown": files.shown.get(record.index) == record.key,
        "kept": record.key in files.kept,
        "size_bytes": _size(files.folder / "clips" / other for other in files.names if other.startswith(record.key)),
        "picture": files.picture(name),
        "preview": files.view(name),
    }


def _size(paths: Iterable[Path]) -> int:
    total = 0
    for path in paths:
        try:
            total += path.stat().st_size
        except OSError:  # removed meanwhile
            continue
    return total
