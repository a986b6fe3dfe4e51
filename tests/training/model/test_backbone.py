"""The backbone computes what ComfyUI computes, on every kind of weights, with gradients, in little memory."""

import functools
import gc
import weakref

import pytest
import torch

from tests.training.fakes import FakeDataset, settings, without_lora
from tests.training.wan_files import HEADER, NUM_LAYERS, STORAGES, int8, transformer_weights
from training.settings.sections import MemoryConfig

pytestmark = pytest.mark.usefixtures("training_mode")


@pytest.fixture
def loaded(wan_folder):
    from training.model.loading import load_backbone

    def load(name: str, **options):
        return load_backbone(wan_folder / f"{name}.safetensors", **options)

    return load


def batch(size: int = 2, seed: int = 0, clip_vision: bool = False):
    from training.model.conditions import Conditions

    generator = torch.Generator().manual_seed(seed)
    noisy, known = (torch.randn(size, 16, 3, 8, 8, generator=generator) for _ in range(2))
    mask = torch.zeros(size, 1, 3, 8, 8)
    mask[:, :, 0] = 1.0
    text = torch.randn(size, 7, 32, generator=generator)
    vision = torch.randn(size, 257, 1280, generator=generator) if clip_vision else None
    return noisy, torch.linspace(0.3, 0.9, size), Conditions(known, mask, text, vision)


def attach(backbone, seed: int = 0, up: float = 0.1, **memory):
    from training.model.adapters import LoraAdapters

    generator = torch.Generator().manual_seed(seed)
    lora = LoraAdapters(backbone.transformer, rank=4, alpha=4.0, generator=generator)
    with torch.no_grad():
        for pair in lora.pairs.values():
            pair.up.copy_(up * torch.randn(pair.up.shape, generator=generator))
    backbone.use_memory(lora.parameters()[0], MemoryConfig(**memory))
    return lora


def gradients(backbone, lora) -> list[torch.Tensor]:
    noisy, sigma, conditions = batch()
    backbone.velocity(noisy, sigma, conditions).square().mean().backward()
    return [parameter.grad for parameter in lora.parameters()]


@pytest.mark.parametrize("name", ["fp32", "wan21_i2v"])
@torch.no_grad()
def test_velocity_is_what_comfyui_samples_with(loaded, name):
    """ComfyUI's own path: un-normalised latents, inverted mask, denoised output; velocity = (noisy - denoised) / sigma."""
    backbone = loaded(name)
    noisy, sigma, conditions = batch(clip_vision=name == "wan21_i2v")
    model = backbone.model
    raw = model.process_latent_out(conditions.y_latent)
    concat = model.concat_cond(
        noise=noisy, concat_latent_image=raw, concat_mask=1.0 - conditions.mask, device=torch.device("cpu")
    )
    text = torch.nn.functional.pad(conditions.text, (0, 0, 0, 512 - 7))
    more = {"clip_fea": conditions.clip_vision} if name == "wan21_i2v" else {}
    denoised = model.apply_model(noisy, sigma, c_concat=concat, c_crossattn=text, **more)
    expected = (noisy - denoised) / sigma.view(-1, 1, 1, 1, 1)
    assert torch.allclose(backbone.velocity(noisy, sigma, conditions), expected, atol=1e-4)


@pytest.mark.parametrize("storage", STORAGES)
def test_gradients_reach_every_layer_in_fp32(loaded, storage):
    backbone = loaded(storage)
    lora = attach(backbone)
    assert len(lora.pairs) == NUM_LAYERS
    for gradient in gradients(backbone, lora):
        assert gradient.dtype is torch.float32 and gradient.isfinite().all() and gradient.abs().sum() > 0
    assert not any(parameter.requires_grad for parameter in backbone.transformer.parameters())


@pytest.mark.parametrize("storage", STORAGES)
def test_a_fresh_lora_changes_nothing(loaded, storage):
    backbone = loaded(storage)
    noisy, sigma, conditions = batch()
    with torch.no_grad():
        before = backbone.velocity(noisy, sigma, conditions)
        lora = attach(backbone, up=0.0)
        assert torch.equal(backbone.velocity(noisy, sigma, conditions), before)
        lora.pairs["blocks.1.ffn.0"].up.fill_(0.1)
        assert not torch.equal(backbone.velocity(noisy, sigma, conditions), before)
        with without_lora(lora):
            assert torch.equal(backbone.velocity(noisy, sigma, conditions), before)


@pytest.fixture
def folded(monkeypatch):
    """ComfyUI's MLP as 0.33 has it: outside training an INT8 down-projection is folded into the activation before it."""
    import comfy.ldm.wan.model
    import comfy.ops

    class Folded(torch.nn.Sequential):
        def forward(self, x):
            return comfy.ops.linear_input_act(self[2], self[0](x), "gelu_tanh")

    make = comfy.ldm.wan.model.WanAttentionBlock.__init__

    def make_folded(block, *arguments, **options):
        make(block, *arguments, **options)
        block.ffn = Folded(*block.ffn)

    monkeypatch.setattr(comfy.ldm.wan.model.WanAttentionBlock, "__init__", make_folded)


@pytest.mark.parametrize("mlp", ["of this ComfyUI", "folded"])
@pytest.mark.parametrize("storage", ["fp32", "int8"])
@torch.no_grad()
def test_each_pair_acts_even_where_others_left_the_training_mode(loaded, request, storage, mlp):
    """As in sample videos and validation, of whichever ComfyUI the tests run on; and in one that folds INT8 layers."""
    import comfy.model_management

    if mlp == "folded":
        request.getfixturevalue("folded")
    backbone = loaded(storage)
    lora = attach(backbone, up=0.0)
    noisy, sigma, conditions = batch()
    before = backbone.velocity(noisy, sigma, conditions)
    for name, pair in lora.pairs.items():
        comfy.model_management.in_training = False
        pair.up.fill_(0.1)
        assert not torch.equal(backbone.velocity(noisy, sigma, conditions), before), name
        pair.up.zero_()
    assert torch.equal(backbone.velocity(noisy, sigma, conditions), before)


@pytest.mark.parametrize("block", [0, 2])
def test_a_layer_that_is_not_called_is_refused(loaded, wan_folder, block):
    """A ComfyUI that folds a layer of one kind of block would leave its LoRA out; here only block 2 is INT8."""
    from safetensors.torch import save_file

    from training.model.adapters import LoraAdapters
    from training.model.execution import require_lora_runs

    weights = transformer_weights()
    quantised = {key: value for key, value in int8(weights).items() if key.startswith("blocks.2.")}
    save_file(weights | quantised, wan_folder / "mixed.safetensors", HEADER)
    backbone = loaded("mixed")
    lora = LoraAdapters(backbone.transformer, rank=4, alpha=4.0, generator=torch.Generator().manual_seed(0))
    require_lora_runs(backbone, lora)
    ffn = backbone.transformer.blocks[block].ffn
    ffn.forward = lambda x: ffn[2].forward(ffn[1](ffn[0](x)))  # as good as a call, but without hooks
    with pytest.raises(ValueError, match=rf"blocks\.{block}\.ffn\.2 of mixed.safetensors without calling the layer"):
        require_lora_runs(backbone, lora)


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize(
    "memory",
    [
        {"offload_block_inputs": True},
        {"swapped_blocks": 2},
        {"compile": True},
        {"keep_attention": True},
        {"keep_attention": True, "compile": True},
        {"keep_attention": True, "swapped_blocks": 2, "offload_block_inputs": True},
    ],
)
def test_memory_savers_change_no_bit(loaded, storage, memory, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda forward, dynamic: forward)  # what it compiles to is PyTorch's business
    plain = loaded(storage)
    expected = gradients(plain, attach(plain, checkpointing=False))
    saving = loaded(storage, on_host="swapped_blocks" in memory)
    for ours, theirs in zip(gradients(saving, attach(saving, **memory)), expected, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(("keep", "self_attentions"), [(False, 2), (True, 1)])
def test_kept_self_attention_is_not_computed_again(loaded, keep, self_attentions):
    """Per block: once forward, and once more in the backward pass unless it is kept; cross-attention always twice."""
    from torch.utils._python_dispatch import TorchDispatchMode

    from training.model.block_memory import FUSED_ATTENTION

    calls = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
            if operator in FUSED_ATTENTION:
                calls.append("self" if args[0].shape[-2] == args[1].shape[-2] else "cross")
            return operator(*args, **(kwargs or {}))

    backbone = loaded("fp32")
    lora = attach(backbone, keep_attention=keep)
    with Watch():
        gradients(backbone, lora)
    num_blocks = len(backbone.transformer.blocks)
    assert calls.count("self") == num_blocks * self_attentions and calls.count("cross") == num_blocks * 2


def test_kept_attention_refuses_what_it_cannot_go_with(loaded):
    backbone = loaded("fp32", attention="math")
    with pytest.raises(ValueError, match="attention = 'math'"):
        attach(backbone, keep_attention=True)


@pytest.fixture
def quick_compiler(monkeypatch):
    """Compile graphs into calls of PyTorch's own operations, so that they can be compared bit for bit."""
    import torch._dynamo

    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    yield torch._dynamo
    torch._dynamo.reset()


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # the compiler looks, and hides the warning by itself
def test_compiled_blocks_keep_their_attention_and_change_no_bit(loaded, quick_compiler):
    """All blocks share their graphs, attention runs once a block, and the gradients are those of the plain way."""
    plain = loaded("fp32")
    expected = gradients(plain, attach(plain, checkpointing=False))
    calls = []
    for compiled in (False, True):
        backbone = loaded("fp32")
        lora = attach(backbone, keep_attention=True, compile=compiled)
        gradients(backbone, lora)
        graphs = quick_compiler.utils.counters["stats"]["unique_graphs"]
        for parameter in lora.parameters():
            parameter.grad = None
        with torch.autograd.profiler.profile(use_kineto=False) as trace:
            found = gradients(backbone, lora)
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, expected, strict=True))
        assert quick_compiler.utils.counters["stats"]["unique_graphs"] == graphs, "a second step compiles nothing"
        calls.append(next(event.count for event in trace.key_averages() if "flash_attention_for_cpu" in event.key))
    assert 0 < graphs <= 12, "each of three blocks had its own"
    assert calls[0] == calls[1], "self-attention was computed again"


def test_a_compiler_that_gives_up_names_the_setting(loaded, quick_compiler):
    """It would run blocks uncompiled, without a word, after as many variants as its limit allows."""
    backbone = loaded("fp32")
    lora = attach(backbone, compile=True)
    told = r"memory.compile is true, but the blocks .* PyTorch compiles \(1, its recompile_limit\): set it to false"
    with quick_compiler.config.patch(recompile_limit=1), pytest.raises(ValueError, match=told):
        gradients(backbone, lora)
    assert not quick_compiler.config.fail_on_recompile_limit_hit, "what else is compiled in this process goes on as before"


def test_gradients_can_be_multiplied_in_fp8_too(loaded, monkeypatch):
    """ComfyUI's flag of the process, which others may reset; how far the gradients are from those in the compute dtype."""
    import comfy.model_management

    monkeypatch.setattr(comfy.model_management, "supports_fp8_compute", lambda device=None: True)
    monkeypatch.setattr(comfy.model_management, "training_fp8_bwd", False)
    found = []
    for options in ({}, {"fp8_backward": True}):
        backbone = loaded("fp8_scaled", **options)
        lora = attach(backbone)
        comfy.model_management.training_fp8_bwd = not options
        found.append(torch.cat([gradient.flatten() for gradient in gradients(backbone, lora)]))
    plain, in_fp8 = found
    assert 0.005 < float((in_fp8 - plain).norm() / plain.norm()) < 0.05  # 0.022 of benchmarks.gains, on another tiny model


def test_fp8_matmul_changes_no_bit_between_forward_and_recomputation(loaded, monkeypatch):
    """Without a graph ComfyUI takes its inference path, with one its training path: both must multiply alike."""
    import comfy.model_management

    monkeypatch.setattr(comfy.model_management, "supports_fp8_compute", lambda device=None: True)
    backbone = loaded("fp8_scaled")
    lora = attach(backbone, checkpointing=False)
    noisy, sigma, conditions = batch()
    with torch.no_grad():
        without_graph = backbone.velocity(noisy, sigma, conditions)
    assert torch.equal(without_graph, backbone.velocity(noisy, sigma, conditions).detach())
    assert all(gradient.abs().sum() > 0 for gradient in gradients(backbone, lora))


def test_swapped_weights_are_on_the_device_only_while_their_block_runs(loaded):
    backbone = loaded("fp8_scaled", on_host=True)
    lora = attach(backbone, swapped_blocks=1)
    layer = backbone.transformer.blocks[-1].self_attn.q
    copies = []
    layer.register_forward_hook(lambda module, inputs, output: copies.append(weakref.ref(module.weight)))
    host = layer.weight
    gradients(backbone, lora)
    assert len(copies) == 2  # forward and recomputation
    assert layer.weight is host and all(copy() is None for copy in copies)
    assert host.storage_dtype is torch.float8_e4m3fn  # still quantised, not dequantised by being moved


def test_a_checkpointed_block_keeps_only_its_input(loaded):
    def saved_bytes(**memory) -> int:
        backbone = loaded("fp32")
        attach(backbone, **memory)
        total = [0]

        def pack(tensor):
            total[0] += tensor.numel() * tensor.element_size()
            return tensor

        noisy, sigma, conditions = batch()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            backbone.velocity(noisy, sigma, conditions).square().mean()
        return total[0]

    assert saved_bytes() < saved_bytes(checkpointing=False) / 4


def test_kept_attention_keeps_no_other_activation(loaded):
    """After the forward pass its own graph, which the kernels needed to be told of the backward pass, must be gone."""

    def alive_bytes(**memory) -> int:
        backbone, packed = loaded("fp32"), []
        attach(backbone, **memory)

        class Packed:
            def __init__(self, tensor):
                self.tensor = tensor

        def pack(tensor):
            packed.append(weakref.ref(held := Packed(tensor.detach())))
            return held

        noisy, sigma, conditions = batch()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda held: held.tensor):
            velocity = backbone.velocity(noisy, sigma, conditions)
        gc.collect()
        assert velocity.requires_grad and packed
        return sum(held.tensor.nbytes for held in (ref() for ref in packed) if held)

    assert alive_bytes(keep_attention=True) == alive_bytes() < alive_bytes(checkpointing=False) / 4


@pytest.mark.parametrize(
    ("storage", "supported", "matmul", "weights"),
    [
        ("fp32", False, "addmm, mm", "30 x float32"),
        ("fp8", False, "addmm, mm", "30 x float8_e4m3fn"),
        ("fp8_scaled", False, "addmm, comfy_kitchen::dequantize_fp8, mm", "30 x scaled float8_e4m3fn"),
        # ComfyUI's fp8 path: activations are quantised too; a CPU then multiplies the dequantised codes
        (
            "fp8_scaled",
            True,
            "addmm, comfy_kitchen::dequantize_fp8, comfy_kitchen::quantize_fp8, mm",
            "30 x scaled float8_e4m3fn",
        ),
    ],
)
def test_the_report_says_what_ran(loaded, monkeypatch, storage, supported, matmul, weights):
    import comfy.model_management

    from training.model.execution import describe_execution

    monkeypatch.setattr(comfy.model_management, "supports_fp8_compute", lambda device=None: supported)
    report = describe_execution(loaded(storage))
    assert (report.matmul, report.weights, report.compute) == (matmul, weights, "float32")
    assert "scaled_dot_product_flash_attention_for_cpu" in report.attention


@pytest.mark.parametrize(("storage", "told"), [("fp32", True), ("fp8", True), ("fp8_scaled", False)])
def test_fp8_gradients_that_nothing_computes_are_told(loaded, monkeypatch, tmp_path, caplog, storage, told):
    """Only layers of a scaled fp8 file multiply in fp8; for others the setting would do nothing, without a word."""
    import comfy.model_management

    from training.method.distributed import Group
    from training.run.assembly import assemble

    monkeypatch.setattr(comfy.model_management, "supports_fp8_compute", lambda device=None: True)
    monkeypatch.setattr(comfy.model_management, "training_fp8_bwd", False)
    config = settings(tmp_path / "run", model={"fp8_backward": True})
    assemble(config, loaded(storage, fp8_backward=True), FakeDataset(), Group(), tmp_path / "run")
    assert ("model.fp8_backward is true, but no product runs in fp8 here (addmm, mm)" in caplog.text) is told


def test_fp8_matmul_can_be_turned_off(loaded, monkeypatch):
    import comfy.model_management

    from training.model.execution import describe_execution

    monkeypatch.setattr(comfy.model_management, "supports_fp8_compute", lambda device=None: True)
    assert "::quantize_fp8" not in describe_execution(loaded("fp8_scaled", fp8_matmul=False)).matmul


def test_the_chosen_attention_kernel_runs(loaded):
    from training.model.execution import describe_execution

    report = describe_execution(loaded("fp32", attention="math"))
    assert "_scaled_dot_product_attention_math" in report.attention and "flash" not in report.attention
    with pytest.raises(ValueError, match="memory.attention is 'cudnn'"):
        describe_execution(loaded("fp32", attention="cudnn"))


def test_one_copy_of_the_weights(loaded):
    """Scaled fp8 codes are used as they were loaded, in any compute dtype."""
    backbone = loaded("fp8_scaled", compute="bf16")
    weight = backbone.transformer.blocks[0].ffn[0].weight
    assert weight.storage_dtype is torch.float8_e4m3fn and weight.dtype is torch.bfloat16
    lora = attach(backbone)
    assert all(gradient.isfinite().all() for gradient in gradients(backbone, lora))


def test_clip_vision_is_required_where_the_model_has_an_image_embedding(loaded):
    backbone = loaded("wan21_i2v")
    with pytest.raises(ValueError, match="no CLIP vision features"):
        backbone.velocity(*batch())
    assert backbone.velocity(*batch(clip_vision=True)).shape == (2, 16, 3, 8, 8)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("t2v", "text-to-video model"),
        ("camera", "is Wan Fun-Camera .*SVI needs a Wan image-to-video model"),
        ("pickle", "pickle"),
        ("vae", "not a diffusion model"),
        ("gone", "cannot be read"),
    ],
)
def test_wrong_files_are_refused_by_name(loaded, wan_folder, name, message):
    from safetensors.torch import save_file

    if name == "pickle":
        torch.save({"a": torch.zeros(1)}, wan_folder / "pickle.safetensors")
    if name == "camera":  # 36 input channels as well
        save_file(transformer_weights("camera_2.2", transformer="CameraWanModel"), wan_folder / "camera.safetensors", HEADER)
    if name == "vae":
        save_file({"decoder.conv1.weight": torch.zeros(1)}, wan_folder / "vae.safetensors")
    with pytest.raises(ValueError, match=message) as error:
        loaded(name)
    assert name in str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"weights": "int3"}, "model.weights is 'int3'"), ({"attention": "sage"}, "memory.attention is 'sage'")],
)
def test_unknown_settings_name_the_known_ones(loaded, options, message):
    with pytest.raises(ValueError, match=message):
        loaded("fp32", **options)


def test_offloading_needs_checkpoints(loaded):
    with pytest.raises(ValueError, match="checkpointing is off"):
        attach(loaded("fp32"), checkpointing=False, swapped_blocks=1)
    with pytest.raises(ValueError, match="has 3 blocks"):
        attach(loaded("fp32"), swapped_blocks=4)
