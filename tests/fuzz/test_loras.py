"""LoRA files near real ones: refused in a sentence that names the file, or merged, with the report counting what it changes."""

import json
import logging
import sys

import pytest
import torch
from hypothesis import strategies as st

from tests.fuzz.campaign import require_sentence
from tests.fuzz.damage import DAMAGES

LINEARS = {"self_attn.q": (64, 64), "cross_attn.v": (64, 64), "ffn.0": (128, 64), "ffn.2": (64, 128)}
MODULES = {f"blocks.{block}.{name}": shape for block in range(2) for name, shape in LINEARS.items()}
PREFIXES = ("diffusion_model.", "", "pipe.dit.", "base_model.model.", "lora_unet_", "transformer.", "nonsense.")
KINDS = (
    "A/B",
    "down/up",
    "loha",
    "lokr",
    "diff",
    "diff_b",
    "half",
    "alpha only",
    "dora",
    "other size",
    "other rank",
    "reshape",
)


@st.composite
def modules(draw) -> dict[str, tuple[int, ...]]:
    """Return the keys and shapes of one module of a LoRA file."""
    name = draw(st.sampled_from([*MODULES, "blocks.9.ffn.0", "patch_embedding", "head.head"]))
    rows, columns = MODULES.get(name, (64, 36))
    rank, kind = draw(st.integers(1, 4)), draw(st.sampled_from(KINDS))
    prefix = draw(st.sampled_from(PREFIXES))
    key = prefix + (name.replace(".", "_") if prefix == "lora_unet_" else name)
    if kind == "other size":
        rows, columns = 2 * rows, columns + 1
    pair = {f"{key}.lora_A.weight": (rank, columns), f"{key}.lora_B.weight": (rows, rank)}
    return {
        "down/up": {f"{key}.lora_down.weight": (rank, columns), f"{key}.lora_up.weight": (rows, rank), f"{key}.alpha": ()},
        "loha": {
            f"{key}.hada_w{k}_{side}": size for k in (1, 2) for side, size in (("a", (rows, rank)), ("b", (rank, columns)))
        },
        "lokr": {f"{key}.lokr_w1": (2, 2), f"{key}.lokr_w2": (rows // 2, columns // 2)},
        "diff": {f"{key}.diff": (rows, columns)},
        "diff_b": {f"{key}.diff_b": (rows,)},
        "half": dict(list(pair.items())[:1]),
        "alpha only": {f"{key}.alpha": draw(st.sampled_from(((), (1,), (2,))))},
        "dora": {**pair, f"{key}.dora_scale": (rows, 1)},
        "other rank": {f"{key}.lora_A.weight": (rank + 1, columns), f"{key}.lora_B.weight": (rows, rank)},
        "reshape": {**pair, f"{key}.reshape_weight": (2,)},
    }.get(kind, pair)


FILES = st.tuples(
    st.lists(modules(), min_size=1, max_size=5).map(lambda parts: {key: size for part in parts for key, size in part.items()}),
    st.none() | DAMAGES,
    st.sampled_from(("F32", "F16", "BF16", "I64")),
    st.integers(0, 2**31),
)
DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64}


def file_of(shapes: dict[str, tuple[int, ...]], dtype: str, seed: int) -> bytes:
    """Return a safetensors file of random values."""
    generator, header, parts, position = torch.Generator().manual_seed(seed), {}, [], 0
    for key, shape in shapes.items():
        values = (torch.randn(shape, generator=generator) + 2).to(DTYPES[dtype])
        parts.append(
            values.flatten().view(torch.uint8).numpy().tobytes()
            if shape
            else values.reshape(1).view(torch.uint8).numpy().tobytes()
        )
        header[key] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, position + len(parts[-1])]}
        position += len(parts[-1])
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + b"".join(parts)


def changed_modules(model, patched) -> set[str]:
    """Return the weights and biases of `model` that `patched` has other values of, once they are merged."""
    import comfy.lora

    changed = set()
    for key, patches in patched.patches.items():
        weight = model.model.state_dict()[key].float()
        merged = comfy.lora.calculate_weight(patches, weight.clone(), key)
        if merged.shape != weight.shape or not torch.equal(merged, weight):
            changed.add(key)
    return changed


@pytest.mark.filterwarnings("ignore")
def test_loras(campaign, pack, model, tmp_path, caplog):
    caplog.set_level(logging.CRITICAL)
    nodes = sys.modules[f"{pack.__name__}.nodes.lora"]
    path = tmp_path / "odd.safetensors"

    def check(example: tuple) -> str:
        shapes, damage, dtype, seed = example
        data = file_of(shapes, dtype, seed)
        path.write_bytes(damage.done_to(data) if damage else data)
        try:
            patched, report = nodes.apply_lora(model, nodes.read_lora(path), "model", 1.0)
        except ValueError as error:
            require_sentence(error, path.name)
            return "refused"
        changed = changed_modules(model, patched)
        owners = {key.rpartition(".")[0] for key in changed}
        assert changed, f"the report says {report.num_matched} of its modules matched, but nothing changes: {sorted(shapes)}"
        num_named = len(report.misfits) + len(report.unmatched)  # of a module that is named, another part may be merged
        told = f"{report}\nchanged: {sorted(changed)}"
        assert len(owners) <= report.num_matched + num_named, told
        assert len(changed) >= report.num_matched - len(report.silent), told  # two names of one module may change two weights
        return "applied"

    assert campaign.run("loras", FILES, check, {"applied", "refused"}, limit=20)
