import json
import pickle
import struct

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from svi_core.files.safetensors_file import read_header, read_tensors, write_tensors, write_tensors_one_by_one


@pytest.fixture
def good(tmp_path):
    path = tmp_path / "good.safetensors"
    save_file({"a": torch.arange(6.0).reshape(2, 3), "b": torch.zeros(4, dtype=torch.bfloat16)}, path, metadata={"k": "v"})
    return path


def test_a_sound_file_is_read(good):
    tensors, metadata = read_tensors(good)
    assert torch.equal(tensors["a"], torch.arange(6.0).reshape(2, 3)) and metadata == {"k": "v"}


MANY_KINDS = {
    "codes": torch.arange(12).reshape(3, 4).to(torch.float8_e4m3fn),
    "half": torch.randn(5, 3).bfloat16(),
    "scale": torch.tensor(0.25),
    "nothing": torch.empty(10, 0),
    "turned": torch.randn(4, 6).T,
}


def test_tensors_written_one_by_one_are_read_back_by_the_formats_own_library(tmp_path):
    kinds = {key: (tensor.dtype, tensor.shape) for key, tensor in MANY_KINDS.items()}
    write_tensors_one_by_one(tmp_path / "a.safetensors", kinds, iter(MANY_KINDS.values()), {"format": "pt"})
    for read in (safetensors.torch.load_file(tmp_path / "a.safetensors"), read_tensors(tmp_path / "a.safetensors")[0]):
        assert read.keys() == MANY_KINDS.keys()
        assert all(read[key].dtype == t.dtype and torch.equal(read[key].float(), t.float()) for key, t in MANY_KINDS.items())
    assert read_tensors(tmp_path / "a.safetensors")[1] == {"format": "pt"}


@pytest.mark.parametrize("tensors", [[torch.zeros(3)], [torch.zeros(2), torch.zeros(2)], [torch.zeros(2).half()], []])
def test_a_file_is_not_begun_with_other_tensors_than_announced(tmp_path, tensors):
    with pytest.raises(ValueError):
        write_tensors_one_by_one(tmp_path / "a.safetensors", {"a": (torch.float32, [2])}, iter(tensors), {})
    assert not list(tmp_path.iterdir())


def test_equal_tensors_and_metadata_are_equal_bytes_and_those_of_the_library(tmp_path):
    tensors = {"b": torch.randn(2, 3).half(), "a": torch.randn(3), "ü": torch.tensor(2.0), "c": torch.randn(5).half()}
    write_tensors(tmp_path / "ours", tensors, {"z": "1", "ä": "\n"})
    write_tensors(tmp_path / "again", dict(reversed(tensors.items())), {"ä": "\n", "z": "1"})
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "again").read_bytes()
    write_tensors(tmp_path / "one", tensors, {"ä": "\n"})
    save_file(tensors, tmp_path / "library", {"ä": "\n"})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "library").read_bytes()


def with_header(path, header, data=b""):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + data)
    return path


F32 = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


@pytest.mark.parametrize(
    ("header", "data"),
    [
        (b"not json", b""),
        (b"[]", b""),
        (b'"text"', b""),
        (b"\xff\xfe", b""),
        ({"a": F32}, b"123"),
        ({"a": F32}, b"12345678"),
        ({"a": {**F32, "dtype": "EVIL"}}, b"1234"),
        ({"a": {**F32, "shape": [2]}}, b"1234"),
        ({"a": {**F32, "shape": [-1]}}, b"1234"),
        ({"a": {**F32, "shape": "4"}}, b"1234"),
        ({"a": {**F32, "shape": 4}}, b"1234"),
        ({"a": {**F32, "data_offsets": [4, 0]}}, b"1234"),
        ({"a": {**F32, "data_offsets": [0]}}, b"1234"),
        ({"a": {"dtype": "F32", "shape": [1]}}, b"1234"),
        ({"a": "text"}, b"1234"),
        ({"a": F32, "b": F32}, b"1234"),
        ({"a": F32, "b": {**F32, "data_offsets": [8, 12]}}, b"123456789012"),
        ({"__metadata__": [], "a": F32}, b"1234"),
        (b"[" * 5000, b""),
        (b'{"a": ' + b"9" * 5000 + b"}", b""),
    ],
)
def test_malformed_headers_are_refused_by_name(tmp_path, header, data):
    path = with_header(tmp_path / "bad.safetensors", header, data)
    with pytest.raises(ValueError, match="bad.safetensors"):
        read_header(path)


def test_shapes_and_names_that_no_model_has_are_refused_by_name(tmp_path):
    """Their size would be multiplied number by number, and their name searched from each of its dots."""
    for key, shape in (("a" * 1_000_000, [1]), ("a", [1] * 100_000), ("a", [0] + [2**60] * 1000)):
        data = b"1234" if 0 not in shape else b""
        path = with_header(tmp_path / "odd.safetensors", {key: {**F32, "shape": shape, "data_offsets": [0, len(data)]}}, data)
        with pytest.raises(
            ValueError, match=rf"odd.safetensors holds a tensor of {len(shape)} dimensions with a name of {len(key)}"
        ) as e:
            read_tensors(path)
        assert len(str(e.value)) < 400


@pytest.mark.parametrize("start", [b"", b"\x01", struct.pack("<Q", 2**60), struct.pack("<Q", 1000) + b"{}"])
def test_truncated_files_are_refused(tmp_path, start):
    path = tmp_path / "cut.safetensors"
    path.write_bytes(start)
    with pytest.raises(ValueError, match="cut.safetensors cannot be read as safetensors"):
        read_header(path)


class Canary:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_pickles_are_refused_by_content_and_never_opened(tmp_path):
    canary = tmp_path / "canary"
    for name, write in {
        "p": lambda p: p.write_bytes(pickle.dumps(Canary(canary))),
        "t": lambda p: torch.save({"a": 1}, p),
    }.items():
        path = tmp_path / f"{name}.safetensors"
        write(path)
        with pytest.raises(ValueError, match="pickle or zip"):
            read_tensors(path)
    assert not canary.exists()


@pytest.mark.parametrize("length", [640, 896, 1152, 1408, 19280])
def test_a_header_whose_length_looks_like_a_pickle_is_sound(tmp_path, length):
    path = tmp_path / "odd.safetensors"
    header = json.dumps({"a": F32}).encode()
    path.write_bytes(struct.pack("<Q", length) + header.ljust(length) + b"1234")
    assert set(read_header(path)) == {"a", "__metadata__"} and set(read_tensors(path)[0]) == {"a"}


def test_what_only_the_library_refuses_is_named_too(tmp_path):
    path = with_header(tmp_path / "odd.safetensors", {"__metadata__": {"k": 1}, "a": F32}, b"1234")
    with pytest.raises(ValueError, match="odd.safetensors"):
        read_tensors(path)


def test_numbers_that_pytorch_lacks_are_refused_by_name(tmp_path):
    kind = {"dtype": "F6_E2M3", "shape": [4], "data_offsets": [0, 3]}
    path = with_header(tmp_path / "six.safetensors", {"a": kind}, b"123")
    with pytest.raises(ValueError, match=r"six.safetensors cannot be read as safetensors \(Dtype not understood"):
        read_tensors(path)


def test_missing_file_and_folder_are_named(tmp_path):
    for path in (tmp_path / "gone.safetensors", tmp_path):
        with pytest.raises(ValueError, match=str(path)):
            read_header(path)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_a_flipped_header_byte_raises_only_value_errors(good, data):
    raw = bytearray(good.read_bytes())
    position = data.draw(st.integers(0, 7 + int.from_bytes(raw[:8], "little")))
    raw[position] ^= data.draw(st.integers(1, 255))
    path = good.with_name("flipped.safetensors")
    path.write_bytes(raw)
    try:
        read_header(path)
    except ValueError as error:
        assert "flipped.safetensors" in str(error)
