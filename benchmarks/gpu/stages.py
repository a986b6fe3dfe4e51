"""The stages in order of worth, and the seconds that each should take, computed from the cost of its work and the card's rates.

Source: docs/METHOD.md, 11.1 and 11.2 (operations, measured rates of an H200).
"""

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
        return 2 * self.load + warm_up + NUM_CLIPS * clips + 8

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
    """One process of the benchmark.

    Attributes:
        name: for the command line and the tables.
        purpose: for the plan.
        module: has the function `measure(bench)`.
        first: name of the column that is drawn.
        needs_weights: whether it loads an expert.
        process: the module that is its process.
    """

    name: str
    purpose: str
    module: str
    first: str
    needs_weights: bool = True
    process: str = "stage_process"

    def seconds(self, shapes: Shapes, card: Card) -> float:
        """Return the seconds that it should take, its process's start included and weights that are missing left out."""
        return SPARE * (card.start + _SECONDS[self.name](Work(shapes, card)))


def card_named(device: str) -> Card | None:
    """Return the card of a driver's name for it, or None for one whose rates are not known."""
    return next((card for card in CARDS if card.name in device), None)


STAGES = (
    Stage("machine", "versions, backends and memory of this machine", "machine_stage", "seconds", needs_weights=False),
    Stage("kernels", "copies, matrix products, every attention kernel", "kernels", "ms", needs_weights=False),
    Stage("weights", "random files of an expert, the VAE and two LoRAs", "weights_stage", "s", needs_weights=False),
    Stage("forward", "one pass of the transformer with each attention kernel", "forward", "s"),
    Stage("loop", "three clips of four steps: ours and stock", "loop_pair", "s per clip"),
    Stage(
        "users",
        "ours with two LoRAs and dynamic memory: first clip, further clips",
        "users",
        "further clips, s",
        process="dynamic_process",
    ),
    Stage("vae", "decode and encode in both memory formats, and in chunks", "vae", "ms", needs_weights=False),
    Stage("training", "an fp8 training step: plain, attention kept, compiled", "training_step", "s"),
    Stage("loop again", "the same in the order stock, ours", "loop_pair", "s per clip"),
    Stage("compiled", "ours with compiled experts", "compiled", "s per clip"),
    Stage("fetched", "ours with each expert fetched when its turn comes", "fetched", "s per clip"),
    Stage("transfers", "frames to the host, and decoding beside sampling", "transfers", "ms", needs_weights=False),
    Stage("more training", "attention kept with cuDNN; block inputs on the host", "training_step", "s"),
    Stage("smallest card", "a clip and a training step in less and less memory", "smallest_card", "s"),
)

_SECONDS = {
    "machine": lambda work: 2.0,
    "kernels": lambda work: 8 + 40 * work.shapes.attention_tflop / work.shapes.num_layers / work.card.attention,
    "weights": lambda work: work.weights,
    "forward": lambda work: work.load + 7 * work.ours + 5 * work.stock,
    "loop": lambda work: work.pair,
    "users": lambda work: work.clips,
    "vae": lambda work: 9 * work.decode + 8 * work.encode,
    "training": lambda work: 3 * work.training_row + work.card.compiling,
    "loop again": lambda work: work.pair,
    "compiled": lambda work: (
        2 * work.load + 2 * work.card.compiling + (NUM_CLIPS + 2) * (NUM_STEPS * work.ours + work.decode) + 5
    ),
    "fetched": lambda work: (2 + 2 * NUM_CLIPS) * work.load + NUM_CLIPS * (NUM_STEPS * work.ours + work.decode) + 5,
    "transfers": lambda work: 8 * work.decode + 5,
    "more training": lambda work: 2 * work.training_row,
    "smallest card": lambda work: (
        5 * (work.card.start + 4 * work.load + NUM_STEPS * work.ours + 4 * work.decode)
        + 2 * (work.card.start + 4 * work.training_row)
    ),
}
