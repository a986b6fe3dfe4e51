"""The demo's command line: what it refuses before anything starts, what it puts into the graph, what it shows."""

import io
from pathlib import Path

import pytest

from comfyui.client import ServerError
from demo.__main__ import MAX_SEED, argument_parser, check_file, check_prompts, main
from demo.run import Progress, Request, fill_graph


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.txt"
    path.write_text("a red ball rolls\n\nit stops\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "arguments", [["--clips", "0"], ["--clips", "-1"], ["--clips", "2.5"], ["--clips", "x"], ["--seed", str(MAX_SEED + 1)]]
)
def test_numbers_that_cannot_work_end_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as caught:
        argument_parser().parse_args(arguments)
    assert caught.value.code == 2
    told = capsys.readouterr().err
    assert repr(arguments[1]) in told and told.count("\n") == 1


@pytest.mark.parametrize("content", [None, b"", b" \n\t\n", b"# only a comment\n", b"\xff\xfe\x00a", b"caf\xe9"])
def test_prompt_files_that_cannot_work_end_with_2(
    tmp_path: Path, reference_image: Path, capsys: pytest.CaptureFixture[str], content: bytes | None
):
    path = tmp_path / "bad.txt"
    if content is not None:
        path.write_bytes(content)
    assert main(["--prompts", str(path), "--image", str(reference_image)]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1 and "--prompts" in captured.err and str(path) in captured.err


def test_a_folder_or_nothing_as_picture_is_refused(tmp_path: Path, prompts: Path):
    assert main(["--image", str(tmp_path), "--prompts", str(prompts)]) == 2
    with pytest.raises(ValueError, match="--image .* cannot be read"):
        check_file(tmp_path / "absent.png", "--image")


def test_a_prompt_file_may_begin_with_a_byte_order_mark(tmp_path: Path):
    path = tmp_path / "bom.txt"
    path.write_bytes("\ufeff# comment\na prompt".encode())
    assert check_prompts(path) == path


def test_the_users_values_are_put_into_the_graph():
    graph = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "x"}},
        "2": {"class_type": "SVIPromptStream", "inputs": {"text": "x", "split": "paragraphs"}},
        "3": {"class_type": "SVIGenerate", "inputs": {"num_clips": 3, "seed": 0, "cfg": 4.0}},
    }
    fill_graph(graph, Request(Path("me.png"), "one\n\ntwo", 7, 42), "reference.png")
    assert [node["inputs"] for node in graph.values()] == [
        {"image": "reference.png"},
        {"text": "one\n\ntwo", "split": "paragraphs"},
        {"num_clips": 7, "seed": 42, "cfg": 4.0},
    ]
    with pytest.raises(ServerError, match="0 nodes of type LoadImage"):
        fill_graph({}, Request(Path("me.png"), "one", 1, 0), "reference.png")


def progress_event(value: int, node: str = "generate") -> tuple[str, dict]:
    return "progress_state", {"nodes": {node: {"value": value, "max": 40, "state": "running"}}}


def test_progress_is_one_figure_for_the_whole_run():
    stream = io.StringIO()
    progress = Progress(4, {"generate"}, stream)
    progress.show([progress_event(value) for value in range(41)])
    lines = stream.getvalue().splitlines()
    assert len(lines) == 11
    assert lines[0] == "[svi]   0%  clip 1 of 4"
    assert lines[5].startswith("[svi]  50%  clip 3 of 4  about 0:00 left")
    assert lines[10].startswith("[svi] 100%  clip 4 of 4")


def test_the_progress_of_other_nodes_and_other_events_do_not_count():
    stream = io.StringIO()
    Progress(4, {"generate"}, stream).show([progress_event(20, "loader"), ("status", {}), ("progress", {"value": 1, "max": 2})])
    assert stream.getvalue() == ""
