"""The stages in order of worth, and the seconds that each should take, computed from the cost of its work and the card's rates.

Source: docs/METHOD.md, 11.1 and 11.2 (operations, measured rates of an H200).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.gpu.shapes import Shapes

NUM_CLIPS, NUM_STEPS = 3, 4
TRAINING_STEPS = 2  # one is not counted
SPARE = 1.15  # for kernels that are chosen, memory that is freed, files that are closed


@dataclass(frozen=True)
class Card:
    """What one device does in a second.

    Attributes:
        name: part of the driver's name.
        start: seconds until a process has imported PyTorch and ComfyUI.
        bf16, fp8: TFLOP of linear layers.
        attention, best_attention: TFLOP of ComfyUI's choice, and of the fastest exact kernel.
        convolution: TFLOP of the VAE.
        load: GB of weights from memory to the device.
        draw: GB of random weights from the device to memory.
        compiling: seconds to compile one transformer.
    """

    name: str
    start: float
    bf16: float
    fp8: float
    attention: float
    best_attention: float
    convolution: float
    load: float
    draw: float
    compiling: float


H200 = Card("H200", 12, 790, 1050, 395, 595, 174, 5, 1.5, 40)
CARDS = (H200, Card("H100", 12, 700, 950, 370, 560, 150, 5, 1.5, 40))
PROCESSOR = Card("CPU", 600, 0.02, 0.02, 0.02, 0.02, 0.02, 0.2, 0.05, 10)  # tiny shapes, a busy machine


@dataclass(frozen=True)
class Work:
    """Seconds of the parts of a stage, for some shapes on a card."""

    shapes: Shapes
    card: Card

    @property
    def load(self) -> float:
        """One expert to the device."""
        return self.shapes.expert_gb / self.card.load

    @property
    def weights(self) -> float:
        """Drawing and writing all files: an expert and two LoRAs."""
        return (self.shapes.expert_gb + 1.5 * self.shapes.lora_gb) / self.card.draw

    def forward(self, attention: float) -> float:
        """One forward pass with fp8 products."""
        return self.shapes.linear_tflop / self.card.fp8 + self.shapes.attention_tflop / attention

    @property
    def ours(self) -> float:
        """One forward pass with the fastest kernel."""
        return self.forward(self.card.best_attention)

    @property
    def stock(self) -> float:
        """One forward pass as ComfyUI chooses."""
        return self.forward(self.card.attention)

    @property
    def one_attention(self) -> float:
        """Attention of one block, as ComfyUI chooses."""
        return self.shapes.attention_tflop / self.shapes.num_layers / self.card.attention

    @property
    def decode(self) -> float:
        """One clip through the VAE to frames."""
        return self.shapes.decode_tflop / self.card.convolution

    @property
    def encode(self) -> float:
        """One clip through the VAE to a latent."""
        return 0.6 * self.decode

    @property
    def pair(self) -> float:
        """The same clips by stock nodes and by ours, after one clip of two steps each."""
        warm_up = 2 * (self.ours + self.stock) + 2 * self.decode + self.encode
        clips = NUM_STEPS * (self.ours + self.stock) + 2 * self.decode + self.encode
        return warm_up + NUM_CLIPS * clips + 8

    @property
    def clips(self) -> float:
        """Clips of ours with LoRAs, weights fetched as ComfyUI does."""
        return 4 * self.load + NUM_CLIPS * (NUM_STEPS * self.ours + self.decode) + 5

    @property
    def training_step(self) -> float:
        """One step with checkpointed blocks."""
        return 3 * self.shapes.linear_tflop / self.card.fp8 + 4.5 * self.shapes.attention_tflop / self.card.attention

    @property
    def training_row(self) -> float:
        """Loading, and the steps of one row."""
        return self.load + TRAINING_STEPS * self.training_step


@dataclass(frozen=True)
class Stage:
    """One part of the benchmark, with a time limit of its own.

    Attributes:
        name: for the command line and the tables.
        purpose: for the plan.
        module: has the function `measure(bench)`.
        first: name of the column that is drawn.
        process: stages in a row with the same one share a process, and so the time that it takes to start.
        loads: what it keeps in memory between its rows; the next stage of the process takes over the same. Of any other stage
            it frees what is left, as compiled code, which holds its model.
        needs_weights: whether it loads an expert.
        starter: the module that is its process.
    """

    name: str
    purpose: str
    module: str
    first: str
    process: str
    loads: str = ""
    needs_weights: bool = True
    starter: str = "stage_process"

    def process_on(self, device: str) -> str:
        """Return the name of its process; a CPU cannot break as a GPU can, so there all with the same starter share one."""
        return self.starter if device == "cpu" else self.process

    def seconds(self, shapes: Shapes, card: Card, starts: bool) -> float:
        """Return the seconds that it should take, with the start of a process or without; missing weights are left out."""
        return SPARE * (_COSTS[self.name](Work(shapes, card))[1] + (card.start if starts else 0.0))

    def row_seconds(self, shapes: Shapes, card: Card) -> float:
        """Return the seconds of its longest row, with what must be loaded for it."""
        return SPARE * _COSTS[self.name](Work(shapes, card))[0]


def card_named(device: str) -> Card | None:
    """Return the card of a driver's name for it, or None for one whose rates are not known."""
    return next((card for card in CARDS if card.name in device), None)


def planned(stages: Sequence[Stage], shapes: Shapes, card: Card) -> dict[str, float]:
    """Return the seconds of each of `stages` by name, when they run one after the other."""
    before, seconds = "", {}
    for stage in stages:
        seconds[stage.name] = stage.seconds(shapes, card, starts=stage.process != before)
        before = stage.process
    return seconds


STAGES = (
    Stage("machine", "versions, backends and memory of this machine", "machine_stage", "seconds", "first", needs_weights=False),
    Stage("kernels", "copies, matrix products, every attention kernel", "kernels", "ms", "first", needs_weights=False),
    Stage("weights", "random files of an expert, the VAE and two LoRAs", "weights_stage", "s", "first", needs_weights=False),
    Stage("forward", "one pass of the transformer with each attention kernel", "forward", "s", "first", "an expert"),
    Stage("loop", "three clips of four steps: ours and stock", "loop_pair", "s per clip", "loop", "experts"),
    Stage(
        "users",
        "ours with two LoRAs and dynamic memory: first clip, further clips",
        "users",
        "further clips, s",
        "users",
        starter="dynamic_process",
    ),
    Stage(
        "vae", "decode and encode in both memory formats, and in chunks", "vae", "ms", "training", "VAE", needs_weights=False
    ),
    Stage("training", "an fp8 training step: plain, attention kept, and compiled too", "training_step", "s", "training"),
    Stage("loop again", "the same as loop in the order stock, ours", "loop_pair", "s per clip", "again", "experts"),
    Stage("compiled", "ours with compiled experts", "compiled", "s per clip", "again", "experts"),
    Stage("fetched", "ours with each expert fetched when its turn comes", "fetched", "s per clip", "again", "experts"),
    Stage(
        "transfers",
        "frames to the host, colours, decoding beside sampling",
        "transfers",
        "ms",
        "again",
        "VAE",
        needs_weights=False,
    ),
    Stage("more training", "fp8 gradients, cuDNN, weights and inputs on the host", "training_step", "s", "more training"),
    Stage("smallest card", "a clip and a training step in less and less memory", "smallest_card", "s", "more training"),
)

_COSTS: dict[str, Callable[[Work], tuple[float, float]]] = {  # seconds of the longest row, and of all
    "machine": lambda work: (2.0, 2.0),
    "kernels": lambda work: (
        5 + work.one_attention,
        8 + 50 * work.one_attention,
    ),
    "weights": lambda work: (work.weights, work.weights),
    "forward": lambda work: (work.load + 2 * work.stock, work.load + 7 * work.ours + 5 * work.stock),
    "loop": lambda work: (2 * work.load + 0.6 * work.pair, 2 * work.load + work.pair),
    "users": lambda work: (work.clips, work.clips),
    "vae": lambda work: (3 + 5 * work.decode, 14 * work.decode + 8 * work.encode),
    "training": lambda work: (work.training_row + work.card.compiling, 3 * work.training_row + work.card.compiling),
    "loop again": lambda work: (2 * work.load + 0.6 * work.pair, 2 * work.load + work.pair),
    "compiled": lambda work: (_compiled(work), _compiled(work)),
    "fetched": lambda work: (_fetched(work), _fetched(work)),
    "transfers": lambda work: (8 + 6 * work.decode, 8 * work.decode + 25),
    "more training": lambda work: (2 * work.training_row + work.card.compiling, 8 * work.training_row + work.card.compiling),
    "smallest card": lambda work: (
        work.card.start + 4 * work.load + NUM_STEPS * work.ours + 4 * work.decode,
        5 * (work.card.start + 4 * work.load + NUM_STEPS * work.ours + 4 * work.decode)
        + 2 * (work.card.start + 4 * work.training_row),
    ),
}


def _compiled(work: Work) -> float:
    return 2 * work.card.compiling + (NUM_CLIPS + 2) * (NUM_STEPS * work.ours + work.decode) + 5


def _fetched(work: Work) -> float:
    return 2 * NUM_CLIPS * work.load + NUM_CLIPS * (NUM_STEPS * work.ours + work.decode) + 5
