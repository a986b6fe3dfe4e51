"""Convert LoRA files between the key names of ComfyUI and of the official SVI code. The values stay the same.

    python -m training.convert my_lora.safetensors official.safetensors --to official

`comfy`: ``diffusion_model.blocks.0.ffn.0.lora_A.weight``, as our training writes. `official`:
``blocks.0.ffn.0.lora_A.default.weight``, as in the authors' 2.x files. `official-1.0`: the same with the prefix ``pipe.dit.``.
The official loaders know no alpha, so it is multiplied into lora_B. The input may have any dialect that the SVI nodes read, as
well as kohya's.
Source: docs/METHOD.md, 6.2.
"""

import argparse
import sys
from pathlib import Path

from svi_core.conditioning.dance import pose_state
from svi_core.files.safetensors_file import read_tensors, write_tensors
from svi_core.systems.lora import LoraFile, read_lora
from svi_core.systems.lora_keys import COMFY_PREFIX
from svi_core.systems.pose_keys import POSE_KEY
from training.model.lora_pairs import LowRankPair, low_rank_pairs

DIALECTS = {"comfy": COMFY_PREFIX, "official": "", "official-1.0": "pipe.dit."}


def convert(source: Path, destination: Path, dialect: str) -> int:
    """Write `source` to `destination` in `dialect` and return the number of layers. Metadata is kept.

    A pose encoder (SVI-Dance) keeps its prefix ``dwpose_embedding.``, which all dialects share.

    Raises:
        ValueError: the file is not a valid LoRA file, the dialect is unknown, or the file holds something other than low-rank
            pairs, which the official code cannot load.
    """
    if dialect not in DIALECTS:
        raise ValueError(f"dialect is {dialect!r}: use one of {', '.join(DIALECTS)}.")
    lora = read_lora(source)
    pairs = _pairs(lora, source)
    converted = {}
    for module, pair in pairs.items():
        up = pair.up
        if dialect == "comfy":
            names = ("lora_A.weight", "lora_B.weight")
            if pair.alpha is not None:
                converted[f"{COMFY_PREFIX}{module}.alpha"] = pair.alpha
        else:
            names = ("lora_A.default.weight", "lora_B.default.weight")
            up = up if pair.alpha is None else (up.float() * pair.scale).to(up.dtype)
        for name, matrix in zip(names, (pair.down, up), strict=True):
            converted[f"{DIALECTS[dialect]}{module}.{name}"] = matrix
    if lora.num_pose_tensors:
        poses = pose_state(read_tensors(source)[0])
        converted |= {POSE_KEY + name: tensor for name, tensor in poses.items()}
    write_tensors(destination, converted, lora.metadata)
    return len(pairs)


def _pairs(lora: LoraFile, source: Path) -> dict[str, LowRankPair]:
    """Return the low-rank pairs by bare module name.

    Raises:
        ValueError: the file holds something else, or nothing.
    """
    pairs, others = low_rank_pairs(lora.tensors)
    if others:
        raise ValueError(f"{source}: {others[0]!r} does not belong to a low-rank pair; only those can be converted.")
    if not pairs:
        raise ValueError(f"{source}: holds no low-rank pair.")
    return pairs


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("destination", type=Path)
    parser.add_argument("--to", choices=DIALECTS, default="official", dest="dialect")
    options = parser.parse_args(arguments)
    try:
        count = convert(options.source, options.destination, options.dialect)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(f"{options.destination}: {count} layers in dialect {options.dialect}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
