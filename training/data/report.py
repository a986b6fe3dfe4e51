"""The report of a cache run: what was used, skipped and repaired, as text and as JSON."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from svi_core.systems.layouts import Layout
from training.data.scan import ClipScan
from training.data.tables import Rejected
from training.data.windows import WindowPlan

_SHOWN_REJECTED = 20


@dataclass(frozen=True)
class UsedClip:
    """A clip that gave examples.

    Attributes:
        name: path in the dataset folder.
        seconds: length of the clip.
        width: width of the picture in pixels.
        height: height of the picture in pixels.
        num_examples: number of its examples.
        notes: remarks for the user, such as a black start, anchors from inside the clip, or an enlarged picture.
    """

    name: str
    seconds: float
    width: int
    height: int
    num_examples: int
    notes: tuple[str, ...]


@dataclass
class CacheReport:
    """The outcome of a cache run, filled while it runs.

    Attributes:
        used: clips that gave examples.
        rejected: clips, rows and tables that gave none, with the reason.
        ignored: folders and files that hold no clips, with the reason.
        repaired: damaged or misplaced entries that were encoded again, with the reason.
        num_encoded: examples encoded in this run.
        num_reused: intact examples that the cache already held.
        num_augmented: augmented first frames encoded in this run.
        num_unused: entries that no index lists.
        unused_bytes: size of those entries.
    """

    used: list[UsedClip] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    ignored: list[Rejected] = field(default_factory=list)
    repaired: list[Rejected] = field(default_factory=list)
    num_encoded: int = 0
    num_reused: int = 0
    num_augmented: int = 0
    num_unused: int = 0
    unused_bytes: int = 0

    def as_json(self) -> dict[str, object]:
        """Return the report as plain JSON values."""
        return asdict(self)

    def summary(self) -> str:
        """Return the report as a table for the terminal."""
        lines = [f"{'clip':<44} {'seconds':>8} {'size':>10} {'examples':>9}  notes"]
        for clip in self.used:
            size = f"{clip.width}x{clip.height}"
            notes = "; ".join(clip.notes)
            lines.append(f"{_shortened(clip.name, 44):<44} {clip.seconds:>8.2f} {size:>10} {clip.num_examples:>9}  {notes}")
        lines += [f"skipped: {item.where}: {item.reason}" for item in self.rejected[:_SHOWN_REJECTED]]
        if len(self.rejected) > _SHOWN_REJECTED:
            lines.append(f"skipped: {len(self.rejected) - _SHOWN_REJECTED} more, see the full report")
        lines += [f"not used: {item.where}: {item.reason}" for item in self.ignored[:_SHOWN_REJECTED]]
        lines += [f"encoded again: {item.where}: {item.reason}" for item in self.repaired]
        examples = (
            f"{self.num_encoded + self.num_reused} examples ({self.num_encoded} encoded, {self.num_reused} already cached)"
        )
        lines.append(f"{len(self.used)} clips, {examples}, {len(self.rejected)} skipped, {len(self.repaired)} encoded again")
        if self.num_augmented:
            lines.append(f"{self.num_augmented} augmented first frames encoded")
        if self.num_unused:
            size = f"{self.unused_bytes / 1e9:.2f} GB"
            lines.append(f"{self.num_unused} entries of other settings or clips remain ({size}): --prune removes them")
        return "\n".join(lines)


def used_clip(name: str, scan: ClipScan, plans: Sequence[WindowPlan], layout: Layout, rate: int, wide: str = "") -> UsedClip:
    """Return the report's entry for a clip that gave `plans`; `wide` names primaries that were converted."""
    notes = [f"colours converted from {wide} to BT.709"] if wide else []
    if scan.lead_in:
        notes.append(f"begins after {scan.lead_in} plain or frozen frames")
    held = max(sum(plan.target[-1] == frame for frame in plan.target) - 1 for plan in plans)
    if held:
        notes.append(f"last frame repeated {held} times")
    later = [plan for plan in plans if plan.later_clip and plan.anchor is not None]
    inside = sum(not plan.anchor_is_outside for plan in later)
    if inside:
        notes.append(f"{inside} of {len(later)} anchors from inside the clip, which is too short for others")
    history = min((len(plan.motion) for plan in later), default=layout.num_frames)
    if layout.in_latent_space and history < layout.num_frames:
        notes.append(f"motion windows of {history} frames")
    enlarged = max(plan.crop.width / plan.crop.box_width for plan in plans)
    if enlarged > 1.1:
        notes.append(f"picture enlarged {enlarged:.1f} times")
    return UsedClip(name, scan.num_frames / rate, scan.width, scan.height, len(plans), tuple(notes))


def _shortened(name: str, width: int) -> str:
    """Return `name` shortened to `width` characters, keeping its end."""
    return name if len(name) <= width else "..." + name[3 - width :]
