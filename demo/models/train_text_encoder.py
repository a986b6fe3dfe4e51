"""Train the tiny umT5 and its tokenizer, and write demo/models/tiny_umt5.safetensors.

    python -m demo.models.train_text_encoder --minutes 1

The tokenizer is a sentencepiece unigram model that folds case and falls back to bytes, so any text passes. The encoder
learns to tell the attributes of a caption (background, object, colour, motion, camera, light), also from a few other
wordings; then it is frozen, and the video model learns to read it.
"""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from demo.models.comfy_import import import_comfy
from demo.models.tiny_models import TEXT_ENCODER_FILE, TEXT_WIDTH, save_half
from demo.models.training_run import TrainingRun, learning_rate
from demo.world import scenes as world
from demo.world.shapes import PALETTE

SEED = 2
VOCABULARY = 640
BATCH = 96
PEAK_LEARNING_RATE = 2e-3
SIZES = {"d_model": TEXT_WIDTH, "d_ff": 128, "d_kv": 16, "num_heads": 4, "num_layers": 2}
MARKER = "encoder.block.23.layer.1.DenseReluDense.wi_1.weight"
"""ComfyUI tells a umT5 by this tensor's first size, 10240; with no columns it costs nothing."""

ATTRIBUTES = {
    "background": tuple(world.BACKGROUND_PHRASES),
    "kind": tuple(world.VERBS),
    "colour": tuple(PALETTE),
    "motion": ("left", "right", "up", "down", "loop", "hop", "stay"),
    "camera": tuple(world.CAMERA_PHRASES),
    "light": tuple(world.LIGHT_PHRASES),
}
OTHER_WORDS = {
    "background": {
        "meadow": ("in a meadow", "on the grass", "in the green hills"),
        "sea": ("at sea", "on the ocean", "on the water"),
        "desert": ("in a desert", "on the sand", "among the dunes"),
        "snow": ("in the snow", "in the mountains", "in winter"),
        "city": ("in a city", "in town", "in front of the skyline"),
    },
    "motion": {
        "left": ("moves to the left", "goes left", "to the left side"),
        "right": ("moves to the right", "goes right", "to the right side"),
        "up": ("moves up", "goes to the top", "flies up"),
        "down": ("moves down", "goes to the bottom", "falls down"),
        "loop": ("circles around", "flies in a circle", "makes a loop"),
        "hop": ("jumps", "hops", "bounces up and down"),
        "stay": ("does not move", "stands still", "rests"),
    },
    "camera": {
        "still": ("static camera", "fixed camera"),
        "left": ("camera pan left", "the camera moves left"),
        "right": ("camera pan right", "the camera moves right"),
    },
    "light": {
        "stay": ("the light does not change", "same light"),
        "night": ("it gets dark", "the sun sets", "at dusk"),
        "day": ("it gets light", "the sun rises", "at dawn"),
    },
}
COMMON_TEXT = (
    "a woman turns her head and smiles at the camera, high quality, cinematic lighting",
    "static, blurry, low quality, worst quality, deformed hands, subtitles, watermark, jpeg artifacts",
    "dancing, running, jumping, walking, talking, singing, waves on the beach, a cat and a dog in the park",
    "The quick brown fox jumps over the lazy dog. 0123456789 !?;:'()",
)


def draw_caption(rng: np.random.Generator) -> tuple[str, dict[str, str]]:
    """Draw attributes and a caption that states them: half of the captions as in the world, half in other words."""
    drawn = {name: str(rng.choice(values)) for name, values in ATTRIBUTES.items()}
    action = world.Action(drawn["motion"], drawn["camera"], drawn["light"])
    if rng.random() < 0.5:
        return world.describe(drawn["background"], drawn["kind"], drawn["colour"], action, rng), drawn
    words = {name: str(rng.choice(OTHER_WORDS[name][drawn[name]])) for name in OTHER_WORDS}
    subject = f"{rng.choice(['the', 'a'])} {drawn['colour']} {drawn['kind']}"
    clauses = [f"{subject} {words['motion']} {words['background']}", words["camera"], words["light"]]
    if rng.random() < 0.5:
        clauses[0] = f"{subject} {words['background']} {words['motion']}"
    return str(rng.choice([". ", ", "])).join(clauses), drawn


def train_tokenizer(rng: np.random.Generator) -> bytes:
    """Train the sentencepiece model (pad 0, eos 1, unk 2, no bos) and return its serialised form."""
    import sentencepiece

    lines = [draw_caption(rng)[0] for _ in range(4000)] + list(COMMON_TEXT) * 50
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        vocab_size=VOCABULARY,
        hard_vocab_limit=False,
        model_type="unigram",
        normalization_rule_name="nmt_nfkc_cf",
        byte_fallback=True,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        pad_piece="<pad>",
        eos_piece="</s>",
        unk_piece="<unk>",
        num_threads=1,
        minloglevel=2,
    )
    return model.getvalue()


class AttributeReader(nn.Module):
    """One learned query over the tokens and one linear classifier per attribute; discarded after training."""

    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Parameter(0.1 * torch.randn(len(ATTRIBUTES), TEXT_WIDTH))
        self.classifiers = nn.ModuleList(nn.Linear(TEXT_WIDTH, len(values)) for values in ATTRIBUTES.values())

    def forward(self, tokens: Tensor, mask: Tensor) -> list[Tensor]:
        """Read `[B, L, C]` tokens where `mask` `[B, L]` is 1; returns logits `[B, values]` for each attribute."""
        scores = (tokens @ self.query.T).masked_fill(mask[:, :, None] == 0, float("-inf"))
        pooled = torch.einsum("bla,blc->abc", scores.softmax(dim=1), tokens)
        return [classify(row) for classify, row in zip(self.classifiers, pooled, strict=True)]


def build_encoder(vocabulary: int) -> nn.Module:
    """Build ComfyUI's T5 encoder in umT5's form with our sizes."""
    import comfy.ops
    import comfy.text_encoders.t5 as t5

    stock = json.loads(Path(t5.__file__).with_name("umt5_config_xxl.json").read_text())
    encoder = t5.T5({**stock, **SIZES, "vocab_size": vocabulary}, torch.float32, "cpu", comfy.ops.disable_weight_init)
    generator = torch.Generator().manual_seed(SEED)
    for name, parameter in encoder.named_parameters():
        if parameter.ndim == 1:
            nn.init.ones_(parameter)
            continue
        scale = 1.0 if name == "shared.weight" else parameter.shape[-1] ** -0.5
        scale = scale * SIZES["d_kv"] ** -0.5 if name.endswith(".q.weight") else scale
        nn.init.normal_(parameter, std=scale, generator=generator)
    return encoder


def tokenize(processor, captions: list[str]) -> tuple[Tensor, Tensor]:
    """Return token ids and mask, both `[B, L]`, padded to the longest caption."""
    rows = [torch.tensor(processor.encode(caption)) for caption in captions]
    ids = nn.utils.rnn.pad_sequence(rows, batch_first=True)
    mask = nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    return ids, mask


def caption_loss(encoder: nn.Module, reader: AttributeReader, processor, rng: np.random.Generator) -> tuple[Tensor, float]:
    """Return the summed cross-entropy of one batch and the share of attributes read right."""
    captions, drawn = zip(*(draw_caption(rng) for _ in range(BATCH)), strict=True)
    ids, mask = tokenize(processor, list(captions))
    tokens, _ = encoder(ids, attention_mask=mask)
    loss, right = torch.zeros(()), 0.0
    for (name, values), logits in zip(ATTRIBUTES.items(), reader(tokens, mask), strict=True):
        goal = torch.tensor([values.index(one[name]) for one in drawn])
        loss = loss + F.cross_entropy(logits, goal)
        right += float((logits.argmax(-1) == goal).float().mean()) / len(ATTRIBUTES)
    return loss, right


def train(minutes: float) -> None:
    """Train tokenizer and encoder and write the file. One minute needs no checkpoints: a cut run starts again."""
    import sentencepiece

    run = TrainingRun("text_encoder", minutes)
    rng = np.random.default_rng(SEED)
    torch.manual_seed(SEED)
    serialised = train_tokenizer(rng)
    processor = sentencepiece.SentencePieceProcessor(model_proto=serialised, add_bos=False, add_eos=True)
    encoder, reader = build_encoder(processor.get_piece_size()), AttributeReader()
    parameters = [*encoder.parameters(), *reader.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=PEAK_LEARNING_RATE, weight_decay=0.01)
    while run.progress < 1.0:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(PEAK_LEARNING_RATE, run.progress, run.step, 50)
        # ComfyUI's encoder adds in place to tensors that autograd has saved
        with torch.autograd.graph.allow_mutation_on_saved_tensors():
            loss, right = caption_loss(encoder, reader, processor, rng)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        run.step += 1
        if run.step % 50 == 0:
            run.log(loss=float(loss.detach()), accuracy=right)
    size = save_half(TEXT_ENCODER_FILE, model_tensors(encoder, serialised))
    run.log(loss=float(loss.detach()), accuracy=right, megabytes=size / 1e6, vocabulary=processor.get_piece_size())


def model_tensors(encoder: nn.Module, serialised: bytes) -> dict[str, Tensor]:
    """Return everything that the file holds: weights, tokenizer and the marker that ComfyUI looks for."""
    tokenizer = torch.frombuffer(bytearray(serialised), dtype=torch.uint8)
    return {**encoder.state_dict(), "spiece_model": tokenizer, MARKER: torch.empty(10240, 0)}


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1.0, help="wall-clock time to train")
    parser.add_argument("--comfyui", help="root of the ComfyUI tree")
    options = parser.parse_args()
    import_comfy(options.comfyui)
    train(options.minutes)


if __name__ == "__main__":
    main()
