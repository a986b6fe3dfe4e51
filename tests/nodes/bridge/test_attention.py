"""The choice of an attention kernel: what is compared, who wins, who is left alone. CPU kernels stand in for a GPU's."""

import contextlib
import importlib
import sys
import threading

import pytest
import torch
from torch.nn.attention import SDPBackend

from tests.nodes.conftest import PACK

HEADS, WIDTH, TOKENS = 2, 16, 1024
KERNELS = {"flash": SDPBackend.FLASH_ATTENTION, "exact": SDPBackend.MATH, "cudnn": SDPBackend.CUDNN_ATTENTION}


@pytest.fixture(scope="module")
def attention(pack):
    return sys.modules[f"{PACK}.nodes.bridge.attention"]


@pytest.fixture(scope="module")
def pytorchs(comfy):
    """What ComfyUI gives to an override when PyTorch's attention is next."""
    return importlib.import_module("comfy.ldm.modules.attention").attention_pytorch.__wrapped__


def qkv(tokens=TOKENS, dtype=torch.bfloat16, keys=None):
    random = torch.Generator().manual_seed(0)
    sizes = (tokens, keys or tokens, keys or tokens)
    return [torch.randn(1, size, HEADS * WIDTH, generator=random).to(dtype) for size in sizes]


def timer(attention, milliseconds):
    """Return a timer that runs what it times, and gives it the next of `milliseconds` (ComfyUI's comes first)."""
    left = list(milliseconds)

    def time(attend):
        attend()
        return left.pop(0)

    return time


def by(kernel, attend=None):
    """Return a candidate: one of PyTorch's kernels ("exact" sums in fp32), or what `attend` makes of its result."""
    kernels = sys.modules[f"{PACK}.nodes.bridge.attention_kernels"]

    def plain(q, k, v, heads):
        wanted = torch.float32 if kernel == "exact" else q.dtype  # ComfyUI lets the plain formula sum in bf16
        return kernels.attend_by(KERNELS[kernel], q.to(wanted), k.to(wanted), v.to(wanted), heads).to(q.dtype)

    return kernels.Kernel(plain if attend is None else lambda *given: attend(plain(*given)))


def chooser(attention, milliseconds, candidates=None, **settings):
    candidates = {name: by(name) for name in KERNELS} if candidates is None else candidates
    return attention.FastestAttention(lambda: candidates, timer(attention, milliseconds), **{"device_type": "cpu", **settings})


@pytest.mark.parametrize(
    ("milliseconds", "winner"),
    [((10.0, 9.0, 5.0), "exact"), ((10.0, 6.0, 7.0), "flash"), ((10.0, 9.6, 9.9), "ComfyUI's"), ((1.0, 5.0, 5.0), "ComfyUI's")],
)
def test_the_clearly_fastest_kernel_is_timed_once_per_shape(attention, pytorchs, milliseconds, winner):
    q, k, v = qkv()
    fastest = chooser(attention, milliseconds)
    first = fastest(pytorchs, q, k, v, heads=HEADS, transformer_options={}, _inside_attn_wrapper=True)
    again = fastest(pytorchs, q, k, v, heads=HEADS)  # the timer has nothing left: timing again would fail
    assert list(fastest.chosen.values()) == [winner]
    if winner == "ComfyUI's":
        expected = pytorchs(q, k, v, HEADS)
    else:
        expected = by(winner).attend(q, k, v, HEADS)
    assert torch.equal(first, expected) and torch.equal(again, expected)


def test_a_kernel_that_this_device_lacks_is_left_out(attention, pytorchs):
    fastest = chooser(attention, (10.0, 8.0, 9.0))  # cudnn needs a GPU and is never timed
    fastest(pytorchs, *qkv(), HEADS)
    assert list(fastest.chosen.values()) == ["flash"]


def spoilt_at(place, value):
    """Return a change of one token."""

    def spoil(out):
        out = out.clone()
        out[:, place] = value if isinstance(value, float) else value * out[:, place]
        return out

    return spoil


@pytest.mark.parametrize(
    ("case", "spoil", "told"),
    [
        ("the last token is not written", spoilt_at(-1, 0.0), "differs by "),
        ("one token is not a number", spoilt_at(5, float("nan")), "differs by inf"),
        ("a head of one token is 10 % off", spoilt_at(7, torch.tensor([1.0, 1.1]).repeat_interleave(WIDTH)), "differs by 0."),
        ("another shape", lambda out: out[:, 1:], "differs by inf"),
        ("8-bit codes", lambda out: out.mul(8).to(torch.float8_e4m3fn).to(out.dtype) / 8, "differs by 0.0"),
    ],
)
def test_a_kernel_that_is_not_exact_cannot_win_however_fast(attention, pytorchs, caplog, case, spoil, told):
    fastest = chooser(attention, (10.0, 9.0), {"quick": by("exact", spoil), "exact": by("exact")})
    q, k, v = qkv()
    with caplog.at_level("INFO"):
        out = fastest(pytorchs, q, k, v, HEADS)
    assert list(fastest.chosen.values()) == ["exact"], case
    assert torch.equal(out, by("exact").attend(q, k, v, HEADS))
    assert f"quick {told}" in caplog.text and "using exact." in caplog.text


def test_a_kernel_of_a_package_may_fail_in_any_way(attention, pytorchs, caplog):
    def fails(*_):
        raise AssertionError("head dimension 16 is not built in")

    kernel = type(by("exact"))(fails)
    fastest = chooser(attention, (10.0, 9.0), {"odd": kernel, "exact": by("exact")})
    with caplog.at_level("INFO"):
        fastest(pytorchs, *qkv(), HEADS)
    assert list(fastest.chosen.values()) == ["exact"]
    assert "odd does not run here (AssertionError)" in caplog.text


def test_the_choice_is_logged_once_and_outlives_the_process(attention, pytorchs, tmp_path, caplog):
    stored = sys.modules[f"{PACK}.nodes.bridge.attention_choices"].StoredChoices(lambda: tmp_path / "attention.json")
    candidates = {"exact": by("exact")}
    with caplog.at_level("INFO"):
        for _ in range(2):
            chooser(attention, (10.0, 5.0), candidates, stored=stored)(pytorchs, *qkv(), HEADS)
            fastest = chooser(attention, (), candidates, stored=stored)  # nothing is left to time
            fastest(pytorchs, *qkv(), HEADS)
            fastest(pytorchs, *qkv(), HEADS)
            assert list(fastest.chosen.values()) == ["exact"]
    assert [record.message.split(": ", 2)[2] for record in caplog.records][:2] == [
        "ComfyUI's 10.00 ms, exact 5.00 ms; using exact.",
        "using exact, as chosen before.",
    ]
    other_candidates = chooser(attention, (10.0, 5.0, 1.0), {"exact": by("exact"), "flash": by("flash")}, stored=stored)
    other_candidates(pytorchs, *qkv(), HEADS)
    other_shape = chooser(attention, (10.0, 9.9), candidates, stored=stored)
    other_shape(pytorchs, *qkv(keys=77), HEADS)
    assert [*other_candidates.chosen.values(), *other_shape.chosen.values()] == ["flash", "ComfyUI's"]


def test_a_kernel_that_is_exact_only_where_attention_is_flat_cannot_win(attention, pytorchs, caplog):
    """Later blocks attend sharply, and there codes of 8 bits differ much; the first block's inputs may be flat."""

    def blurs_what_is_sharp(q, k, v, heads):
        out = by("exact").attend(q, k, v, heads)
        return out if q.abs().max() < 8 else out * 1.1

    fastest = chooser(attention, (10.0, 9.0), {"8 bits": type(by("exact"))(blurs_what_is_sharp), "exact": by("exact")})
    with caplog.at_level("INFO"):
        fastest(pytorchs, *qkv(), HEADS)
    assert list(fastest.chosen.values()) == ["exact"] and "8 bits differs by 0.1" in caplog.text


def test_in_fp16_the_limit_is_that_of_its_rounding(attention, pytorchs):
    """A deviation that bf16 has from rounding is a fault in fp16."""
    candidates = {"coarse": by("exact", lambda out: out.mul(1.003))}
    for dtype, winner in ((torch.bfloat16, "coarse"), (torch.float16, "ComfyUI's")):
        fastest = chooser(attention, (10.0, 5.0), candidates)
        fastest(pytorchs, *qkv(dtype=dtype), HEADS)
        assert list(fastest.chosen.values()) == [winner]


def test_a_chosen_kernel_that_fails_later_is_given_up_once(attention, pytorchs, tmp_path, caplog):
    """As after an update of its package; every run would fail otherwise."""
    stored = sys.modules[f"{PACK}.nodes.bridge.attention_choices"].StoredChoices(lambda: tmp_path / "attention.json")
    calls = []

    def fails_later(q, k, v, heads):
        calls.append(q)
        if len(calls) > 3:  # compared twice, timed once
            raise RuntimeError("an update broke it")
        return by("exact").attend(q, k, v, heads)

    fastest = chooser(attention, (10.0, 5.0), {"new": type(by("exact"))(fails_later)}, stored=stored)
    q, k, v = qkv()
    for _ in range(2):
        assert torch.equal(fastest(pytorchs, q, k, v, HEADS), pytorchs(q, k, v, HEADS))
    assert len(calls) == 4 and list(fastest.chosen.values()) == ["ComfyUI's"]
    assert caplog.text.count("new failed (an update broke it); using ComfyUI's from now on.") == 1
    again = chooser(attention, (10.0, 5.0), {"new": by("exact")}, stored=stored)
    again(pytorchs, q, k, v, HEADS)
    assert list(again.chosen.values()) == ["new"], "it is compared anew by the next process"


def test_a_lack_of_memory_of_the_chosen_kernel_is_told_as_such(attention, pytorchs):
    def fails_later(q, k, v, heads):
        if fastest.chosen:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return by("exact").attend(q, k, v, heads)

    fastest = chooser(attention, (10.0, 5.0), {"large": type(by("exact"))(fails_later)})
    with pytest.raises(torch.OutOfMemoryError):
        fastest(pytorchs, *qkv(), HEADS)
    assert list(fastest.chosen.values()) == ["large"]


@pytest.mark.parametrize(("milliseconds", "winner"), [((10.0, 9.9), "ComfyUI's"), ((10.0, 5.0), "exact")])
def test_the_next_process_compares_nothing_though_a_kernel_does_not_run_here(
    attention, pytorchs, tmp_path, milliseconds, winner
):
    """A GPU that lacks one lacks it tomorrow; an update of anything that could change this has a key of its own."""
    stored = sys.modules[f"{PACK}.nodes.bridge.attention_choices"].StoredChoices(lambda: tmp_path / "attention.json")
    for times in (milliseconds, ()):
        fastest = chooser(attention, times, {"cudnn": by("cudnn"), "exact": by("exact")}, stored=stored)
        fastest(pytorchs, *qkv(), HEADS)
        assert list(fastest.chosen.values()) == [winner]


def test_two_threads_compare_one_after_the_other(attention, pytorchs):
    """As the threads of two GPUs: timing beside another comparison would mislead, and one shape is timed once."""
    from concurrent.futures import ThreadPoolExecutor

    fastest, inputs = chooser(attention, (10.0, 8.0, 9.0)), qkv()
    with ThreadPoolExecutor(4) as threads:
        outs = list(threads.map(lambda _: fastest(pytorchs, *inputs, HEADS), range(4)))
    assert list(fastest.chosen.values()) == ["flash"] and all(torch.equal(out, outs[0]) for out in outs)


def test_threads_of_two_gpus_disturb_neither_each_others_kernel_nor_the_process(attention, pytorchs, monkeypatch):
    """PyTorch's choice of kernels is one of the whole process; ComfyUI's own attention may set it too."""
    from concurrent.futures import ThreadPoolExecutor

    kernels, met, allowed = sys.modules[f"{PACK}.nodes.bridge.attention_kernels"], threading.Barrier(3), {}
    plain, cuda = kernels.scaled_dot_product_attention, torch.backends.cuda

    def note(q, k, v):
        with contextlib.suppress(threading.BrokenBarrierError):
            met.wait(0.3)  # for the others, if they can come
        allowed[k.shape[2]] = cuda.flash_sdp_enabled(), cuda.math_sdp_enabled()
        return plain(q, k, v)

    def theirs(q, k, v, heads, **_):
        return kernels.attend_by(SDPBackend.FLASH_ATTENTION, q, k, v, heads)

    monkeypatch.setattr(kernels, "scaled_dot_product_attention", note)
    monkeypatch.setattr(attention, "_pytorchs", lambda: theirs)
    fastest = chooser(attention, ())
    inputs = {name: qkv(keys=keys) for name, keys in {"flash": 64, "exact": 65, "ComfyUI's": 66}.items()}
    for name, (q, k, _) in inputs.items():
        fastest.chosen[q.device, q.dtype, HEADS, q.shape, k.shape] = name
    before = _flags()
    with ThreadPoolExecutor(3) as threads:
        list(threads.map(lambda given: fastest(theirs, *given, HEADS), inputs.values()))
    assert allowed == {64: (True, False), 65: (False, True), 66: (True, False)} and _flags() == before


def _flags() -> tuple[bool, ...]:
    """Return which of PyTorch's kernels the process may use."""
    cuda = torch.backends.cuda
    return cuda.flash_sdp_enabled(), cuda.math_sdp_enabled(), cuda.mem_efficient_sdp_enabled(), cuda.cudnn_sdp_enabled()


def test_the_time_of_a_kernel_is_a_median(attention, monkeypatch):
    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            pass

        def synchronize(self):
            pass

        def elapsed_time(self, end):
            return times.pop()

    times, calls = [5.0, 1.0, 2.0, 3.0, 90.0], []
    monkeypatch.setattr(torch.cuda, "Event", Event)
    assert attention.gpu_milliseconds(lambda: calls.append(1)) == 3.0 and len(calls) == 6


def test_an_update_of_comfyui_or_of_a_kernels_package_chooses_anew(attention, monkeypatch):
    kernel, cpu = by("exact"), torch.device("cpu")
    before = attention._machine(cpu, {"sage": kernel})
    newer = type(kernel)(kernel.attend, release="sageattention 9.9")
    assert attention._machine(cpu, {"sage": newer}) != before
    monkeypatch.setattr(attention, "comfyui_version", lambda: "ComfyUI 9.9")
    assert attention._machine(cpu, {"sage": kernel}) != before


@pytest.mark.parametrize(
    ("shown", "told"),
    [
        (
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.129.03  Thu Oct 19\nGCC version: 12.2.0",
            ", driver 535.129.03 for CUDA 13000;",
        ),
        (
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build",
            ", driver 580.65.06 for CUDA 13000;",
        ),
        ("another text", ", driver for CUDA 13000;"),
        (None, ", driver for CUDA 13000;"),
    ],
)
def test_an_update_of_the_driver_chooses_anew(attention, monkeypatch, tmp_path, shown, told):
    """Many drivers are for one CUDA, so that number would not tell them apart."""
    if shown is not None:
        (tmp_path / "version").write_text(shown)
    monkeypatch.setattr(attention, "DRIVER_FILE", tmp_path / "version")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H200")
    monkeypatch.setattr(torch._C, "_cuda_getDriverVersion", lambda: 13000, raising=False)
    assert attention.machine_name(torch.device("cuda")).startswith(f"NVIDIA H200{told}")


def test_a_lack_of_memory_is_not_remembered(attention, pytorchs, tmp_path):
    """Another run may have the memory that this one lacked."""

    def fails(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    stored = sys.modules[f"{PACK}.nodes.bridge.attention_choices"].StoredChoices(lambda: tmp_path / "attention.json")
    fastest = chooser(attention, (10.0, 5.0), {"large": type(by("exact"))(fails), "exact": by("exact")}, stored=stored)
    fastest(pytorchs, *qkv(), HEADS)
    assert list(fastest.chosen.values()) == ["exact"] and not (tmp_path / "attention.json").exists()


def test_a_kernel_is_not_compared_where_it_is_known_to_be_wrong(attention, pytorchs):
    never = type(by("exact"))(by("exact").attend, lambda q, k: False)
    fastest = chooser(attention, (10.0,), {"never": never})
    fastest(pytorchs, *qkv(), HEADS)
    assert list(fastest.chosen.values()) == ["ComfyUI's"]


def test_off_is_exactly_comfyuis_choice(attention, model, monkeypatch):
    """Not even an override that would only pass on."""
    monkeypatch.setattr(attention.FASTEST, "device_type", "cpu")
    monkeypatch.setenv(attention.SETTING, "off")
    assert attention.with_fastest_attention(model) is model
    monkeypatch.setenv(attention.SETTING, "fastest")
    assert attention.with_fastest_attention(model) is not model
    monkeypatch.setenv(attention.SETTING, "of")
    with pytest.raises(ValueError, match="SVI_ATTENTION is 'of': set it to fastest or off"):
        attention.require_attention_setting()


def test_other_shapes_are_timed_for_themselves(attention, pytorchs):
    fastest = chooser(attention, (10.0, 8.0, 9.0, 1.0, 8.0, 9.0))
    fastest(pytorchs, *qkv(), HEADS)
    fastest(pytorchs, *qkv(keys=77), HEADS)
    assert sorted(fastest.chosen.values()) == ["ComfyUI's", "flash"]


@pytest.mark.parametrize(
    ("case", "inputs", "options"),
    [
        ("a mask", {}, {"mask": torch.zeros(1, TOKENS, TOKENS, dtype=torch.bfloat16)}),
        ("another scale", {}, {"scale": 0.5}),
        ("heads split already", {}, {"skip_reshape": True}),
        ("few tokens", {"tokens": 1023}, {}),
        ("float32", {"dtype": torch.float32}, {}),
        ("a GPU is meant", {}, {"device_type": "cuda"}),
    ],
)
def test_what_is_not_plain_large_attention_goes_to_comfyui(attention, pytorchs, case, inputs, options):
    settings = {"device_type": options.pop("device_type")} if "device_type" in options else {}
    q, k, v = qkv(**inputs)
    if "skip_reshape" in options:
        q, k, v = (t.unflatten(-1, (HEADS, WIDTH)).transpose(1, 2) for t in (q, k, v))
    fastest = chooser(attention, (), **settings)
    assert torch.equal(fastest(pytorchs, q, k, v, HEADS, **options), pytorchs(q, k, v, HEADS, **options)), case
    assert not fastest.chosen


def test_the_attention_that_the_user_chose_is_respected(attention, comfy):
    sub_quad = importlib.import_module("comfy.ldm.modules.attention").attention_sub_quad.__wrapped__
    q, k, v = qkv()
    fastest = chooser(attention, ())
    assert torch.equal(fastest(sub_quad, q, k, v, HEADS), sub_quad(q, k, v, HEADS)) and not fastest.chosen


def test_the_attention_that_a_model_file_prefers_is_respected(attention, monkeypatch):
    """Newer ComfyUI hands the preference to the attention function as a keyword."""
    fastest, seen = chooser(attention, ()), []

    def newer(*tensors, preferred_attention=None, **options):
        seen.append(preferred_attention)
        return tensors[0]

    monkeypatch.setattr(attention, "_pytorchs", lambda: newer)
    fastest(newer, *qkv(), HEADS, preferred_attention="comfy_kitchen_int8")
    assert seen == ["comfy_kitchen_int8"] and not fastest.chosen


def test_a_failure_of_comfyuis_own_attention_is_its_own(attention, monkeypatch):
    def fails(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(attention, "_pytorchs", lambda: fails)
    with pytest.raises(torch.OutOfMemoryError):
        chooser(attention, ())(fails, *qkv(), HEADS)


@pytest.mark.parametrize("place", ["attention", "timer"])
def test_without_memory_to_compare_attention_is_comfyuis(attention, pytorchs, monkeypatch, tmp_path, caplog, place):
    """A comparison holds results of two kernels and sharper inputs; a run that fits without it must not end."""

    def theirs(q, k, v, heads, **options):
        if place == "attention" and not fastest.chosen:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return pytorchs(q, k, v, heads, **options)

    def time(attend):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(attention, "_pytorchs", lambda: theirs)
    stored = sys.modules[f"{PACK}.nodes.bridge.attention_choices"].StoredChoices(lambda: tmp_path / "attention.json")
    fastest = attention.FastestAttention(lambda: {"exact": by("exact")}, time, "cpu", stored)
    q, k, v = qkv()
    assert torch.equal(fastest(theirs, q, k, v, HEADS), pytorchs(q, k, v, HEADS))
    assert list(fastest.chosen.values()) == ["ComfyUI's"] and not (tmp_path / "attention.json").exists()
    assert "1024 x 1024 tokens: there is not enough memory to compare kernels; using ComfyUI's." in caplog.text


def test_a_model_gets_the_choice_by_a_clone_with_its_patches(attention, model, monkeypatch):
    assert attention.with_fastest_attention(model) is model, "a no-op on CPU"
    monkeypatch.setattr(attention.FASTEST, "device_type", "cpu")
    clone = attention.with_fastest_attention(model)
    assert clone is not model and clone.patches_uuid == model.patches_uuid and clone.model is model.model
    assert attention.OVERRIDE not in model.model_options["transformer_options"]
    assert attention.with_fastest_attention(clone) is clone, "an override that is there stays"


def test_the_model_attention_backend_of_newer_comfyui_is_respected(attention, model, monkeypatch):
    if not hasattr(model, "set_model_optimized_attention"):
        pytest.skip("this ComfyUI has no Model Attention Backend")
    monkeypatch.setattr(attention.FASTEST, "device_type", "cpu")
    chosen = model.clone()
    chosen.set_model_optimized_attention(importlib.import_module("comfy.ldm.modules.attention").attention_pytorch)
    assert attention.with_fastest_attention(chosen) is chosen


def test_wan_calls_the_override_for_self_and_cross_attention(attention, model, monkeypatch):
    """What ComfyUI hands over in a real forward pass is what the override expects."""
    seen = []
    fastest = chooser(attention, ())

    def note(func, q, k, v, heads, *rest, **options):
        seen.append((q.shape[1], k.shape[1], rest, set(options)))
        return fastest(func, q, k, v, heads, *rest, **options)

    transformer = model.model.diffusion_model
    latent = torch.zeros(1, 36, 2, 4, 4)
    context = torch.zeros(1, 7, transformer.text_embedding[0].in_features)
    with torch.inference_mode():
        transformer(latent, torch.tensor([500.0]), context, transformer_options={attention.OVERRIDE: note})
    assert {(q, k) for q, k, *_ in seen} == {(8, 8), (8, 7)}
    assert all(rest == () and options <= attention._KNOWN for *_, rest, options in seen)


@pytest.mark.parametrize("keys", [TOKENS, 77])
def test_a_compiler_is_told_rightly_what_the_operator_makes(attention, keys):
    """Shape, dtype and strides, and that it changes none of its inputs; PyTorch's own check of operators."""
    q, k, v = qkv(keys=keys)
    checks = ("test_schema", "test_faketensor", "test_aot_dispatch_static")
    found = torch.library.opcheck(attention._operator(), (q, k, v, HEADS), test_utils=checks)
    assert set(found.values()) == {"SUCCESS"}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_the_chosen_kernel_differs_in_the_last_bits_only(attention, pytorchs):
    q, k, v = (t.cuda() for t in qkv(tokens=4096))
    fastest = attention.FastestAttention()
    assert (fastest(pytorchs, q, k, v, HEADS) - pytorchs(q, k, v, HEADS)).abs().max() < 0.01
    assert len(fastest.chosen) == 1
