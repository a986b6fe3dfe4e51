"""Convert LoRA files between the key names of ComfyUI and of the official SVI code. The values stay the same.

    python -m training.convert my_lora.safetensors official.safetensors --to official

`comfy`: ``diffusion_model.blocks.0.ffn.0.lora_A.weight``, as our training writes. `official`:
``blocks.0.ffn.0.lora_A.default.weight``, as in the authors' 2.x files. `official-1.0`: the same with the prefix ``pipe.dit.``.
The official loaders know no alpha, so it is multiplied into lora_B. The input may have any dialect that the SVI nodes read, as
well as kohya's.
Source: docs/METHOD.md, 6.2.
"""

import argparse
import re
import sys
from pathlib import Path

from torch import Tensor

from svi_core.conditioning.dance import pose_state
from svi_core.files.safetensors_file import read_tensors, write_tensors
from svi_core.systems.lora import read_lora
from svi_core.systems.lora_keys import COMFY_PREFIX
from svi_core.systems.pose_keys import POSE_KEY

DIALECTS = {"comfy": COMFY_PREFIX, "official": "", "official-1.0": "pipe.dit."}
_SIDES = {"lora_A": "lora_A", "lora_down": "lora_A", "lora_B": "lora_B", "lora_up": "lora_B"}
_PAIR_KEY = re.compile(r"^(?P<module>.+)\.(?P<side>lora_A|lora_B|lora_down|lora_up)(?:\.weight)?$")
_KOHYA = re.compile(r"^lora_unet_+blocks_(\d+)_(?:(self_attn|cross_attn)_(\w+)|ffn_(\d))$")


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
    pairs, alphas = _pairs(lora.tensors, source)
    converted = {}
    for module, sides in pairs.items():
        up, down = sides["lora_B"], sides["lora_A"]
        alpha = alphas.get(module)
        if dialect == "comfy":
            names = ("lora_A.weight", "lora_B.weight")
            if alpha is not None:
                converted[f"{COMFY_PREFIX}{module}.alpha"] = alpha
        else:
            names = ("lora_A.default.weight", "lora_B.default.weight")
            up = up if alpha is None else (up.float() * (float(alpha) / down.shape[0])).to(up.dtype)
        for name, matrix in zip(names, (down, up), strict=True):
            converted[f"{DIALECTS[dialect]}{module}.{name}"] = matrix
    if lora.num_pose_tensors:
        poses = pose_state(read_tensors(source)[0])
        converted |= {POSE_KEY + name: tensor for name, tensor in poses.items()}
    write_tensors(destination, converted, lora.metadata)
    return len(pairs)


def _pairs(tensors: dict[str, Tensor], source: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Tensor]]:
    """Return the matrices by bare module name and side, and the alphas by bare module name.

    Raises:
        ValueError: a key belongs to no pair, or a pair lacks a matrix.
    """
    pairs: dict[str, dict[str, Tensor]] = {}
    alphas = {}
    for key, tensor in tensors.items():
        if key.endswith(".alpha"):
            alphas[_bare(key.removesuffix(".alpha"))] = tensor
        elif match := _PAIR_KEY.match(key):
            pairs.setdefault(_bare(match["module"]), {})[_SIDES[match["side"]]] = tensor
        else:
            raise ValueError(f"{source}: {key!r} does not belong to a low-rank pair; only those can be converted.")
    halves = [module for module, sides in pairs.items() if len(sides) != 2]
    if halves or not pairs:
        raise ValueError(f"{source}: {halves[0] + ' has only one matrix' if halves else 'holds no low-rank pair'}.")
    return pairs, alphas


def _bare(module: str) -> str:
    """Return a module name of any dialect without its prefix, such as ``blocks.0.self_attn.q``."""
    if match := _KOHYA.match(module):
        block, attention, name, ffn = match.groups()
        return f"blocks.{block}.{attention}.{name}" if attention else f"blocks.{block}.ffn.{ffn}"
    return module.removeprefix(COMFY_PREFIX)


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
