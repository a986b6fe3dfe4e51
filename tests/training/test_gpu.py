"""What only a GPU can show: real 14B shapes in fp8, and memory savers that change nothing on a device of its own."""

import math
import time
from types import SimpleNamespace

import pytest
import torch

from tests.training import wan_files
from tests.training.fakes import FakeDataset, settings
from training.data.dataset import TrainingExample
from training.method.distributed import Group

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.usefixtures("training_mode"),
]
WAN_14B = {"dim": 5120, "ffn_dim": 13824, "num_heads": 40, "num_layers": 40, "text_dim": 4096}
GIB = 2**30
DEEP = 12  # blocks


class RealShapes(FakeDataset):
    """81 frames at 832 x 480, 32 760 tokens."""

    def make(self, index: int, name: str = "clip") -> TrainingExample:
        generator = torch.Generator().manual_seed(index)
        shape = (16, 21, 60, 104)
        latent, y_latent = (torch.randn(shape, generator=generator) for _ in range(2))
        mask = torch.zeros(1, *shape[1:])
        mask[:, 0] = 1.0
        return TrainingExample(name, latent, y_latent, mask, range(1, 2), torch.randn(512, 4096, generator=generator), None, {})


def random_14b(on_host: bool):
    """Return a 14B image-to-video transformer with random fp8 weights, never held in anything wider as a whole."""
    import comfy.ops
    from comfy.ldm.wan.model import WanModel

    from training.model.backbone import Backbone

    device = "cpu" if on_host else "cuda"
    transformer = WanModel(
        model_type="t2v", in_dim=36, dtype=torch.float8_e4m3fn, device=device, operations=comfy.ops.manual_cast, **WAN_14B
    ).requires_grad_(False)
    with torch.no_grad():
        for parameter in transformer.parameters():
            spread = 1.0 if parameter.ndim == 1 else parameter[0].numel() ** -0.5
            values = torch.empty(parameter.shape, dtype=torch.bfloat16, device="cuda").normal_(std=spread)
            parameter.copy_(values.to(parameter.dtype))
    for name, child in transformer.named_children():
        if name != "blocks":
            child.to("cuda")
    import comfy.model_management

    comfy.model_management.in_training = True
    return Backbone(transformer, SimpleNamespace(), torch.device("cuda"), torch.bfloat16, "random 14B", "0" * 64)


@pytest.mark.parametrize(
    ("name", "needed_gib", "memory"),
    [
        ("24gb", 23, {"swapped_blocks": 40, "offload_block_inputs": True}),
        ("48gb", 46, {"offload_block_inputs": True}),
        ("80gb", 70, {}),
        ("141gb", 85, {"keep_attention": True}),
    ],
)
def test_real_14b_shapes_train_in_fp8(comfy, tmp_path, name, needed_gib, memory):
    from training.method.erft_step import training_step
    from training.run.assembly import assemble

    total = torch.cuda.get_device_properties(0).total_memory / GIB
    if total < needed_gib:
        pytest.skip(f"needs {needed_gib} GiB, the device has {total:.0f}")
    config = settings(tmp_path / "run", memory=memory, lora={"rank": 128, "alpha": 128.0}, loop={"steps": 3})
    torch.cuda.reset_peak_memory_stats()
    trainer = assemble(config, random_14b(on_host="swapped_blocks" in memory), RealShapes(), Group(), tmp_path / "run")
    assert trainer.lora.num_parameters == 613_416_960
    before = [pair.up.detach().clone() for pair in trainer.lora.pairs.values()]
    for step in range(3):
        began = time.perf_counter()
        result = training_step(trainer)
        torch.cuda.synchronize()
        seconds, peak = time.perf_counter() - began, torch.cuda.max_memory_allocated() / GIB
        print(f"{name}: step {step + 1}, {seconds:.2f} s, peak {peak:.2f} GiB, loss {result.loss:.4f}")
        assert math.isfinite(result.loss)
    assert all(not torch.equal(pair.up, old) for pair, old in zip(trainer.lora.pairs.values(), before, strict=True))
    assert torch.cuda.max_memory_allocated() / GIB < needed_gib


@pytest.fixture(scope="module")
def deep_folder(comfy, tmp_path_factory):
    """As `wan_folder`, with so many blocks that copies of one run beside the computation of others."""
    folder = tmp_path_factory.mktemp("deep_wan_files")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(wan_files.SIZES, "num_layers", DEEP)
        wan_files.write_all(folder)
    return folder


@pytest.mark.parametrize("storage", ["bf16", "fp8", "fp8_scaled"])
def test_memory_savers_change_no_bit_on_a_gpu(deep_folder, storage):
    from tests.training.model.test_backbone import attach, gradients
    from training.model.loading import load_backbone

    torch.use_deterministic_algorithms(True, warn_only=True)
    results = []
    savers = {"offload_block_inputs": True}, {"swapped_blocks": DEEP}, {"offload_block_inputs": True, "swapped_blocks": DEEP}
    for memory in ({}, *savers):
        backbone = load_backbone(deep_folder / f"{storage}.safetensors", on_host="swapped_blocks" in memory, attention="math")
        lora = attach(backbone, **memory)
        results += [
            gradients(backbone, lora) for _ in range(2)
        ]  # a second pass begins while copies of the first may be going on
    torch.use_deterministic_algorithms(False)
    for again in (False, True):
        first, *others = results[again::2]
        for other in others:
            assert all(torch.equal(ours, theirs) for ours, theirs in zip(first, other, strict=True))
