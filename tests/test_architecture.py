"""Who may know whom, held by reading every import of the tree."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("svi_core", "nodes", "training", "demo", "benchmarks")
COMFY_ROOTS = {
    "comfy",
    "comfy_api",
    "comfy_extras",
    "comfy_execution",
    "folder_paths",
    "server",
    "latent_preview",
    "node_helpers",
}


def sources(*rooms: str) -> list[Path]:
    return [path for room in rooms for path in sorted((ROOT / room).rglob("*.py"))]


def imports(path: Path) -> list[tuple[int, str]]:
    """Return (relative level, dotted module) of every import in `path`."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(0, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append((node.level, node.module or ""))
    return found


def test_the_walk_sees_the_rooms():
    assert len(sources("svi_core")) >= 8 and len(sources("nodes")) >= 4


@pytest.mark.parametrize("path", sources("svi_core"), ids=lambda p: p.name)
def test_core_knows_only_itself(path):
    depth = len(path.relative_to(ROOT / "svi_core").parts)
    for level, module in imports(path):
        assert level <= depth, f"{path.name} reaches out of svi_core: {module}"
        assert level or module.split(".")[0] not in COMFY_ROOTS | {"nodes", "training", "demo"}, module


@pytest.mark.parametrize("path", sources("nodes"), ids=lambda p: p.name)
def test_nodes_know_core_and_comfy_only(path):
    depth = len(path.relative_to(ROOT / "nodes").parts)
    for level, module in imports(path):
        if level == depth + 1:
            assert module.split(".")[0] == "svi_core", module
        if level == 0 and module != "comfy_execution.graph_utils":  # the one part of it that does not import `nodes`
            assert module.split(".")[0] not in {"nodes", "svi_core", "training", "demo", "comfy_extras", "comfy_execution"}, (
                module
            )


MAY_KNOW_COMFY = {"loading.py", "encoders.py", "comfy_runtime.py", "lora_file.py"}


@pytest.mark.parametrize("path", sources("training"), ids=lambda p: p.name)
def test_training_knows_core_and_a_few_files_know_comfy(path):
    for level, module in imports(path):
        root = module.split(".")[0] if level == 0 else ""
        assert level <= len(path.relative_to(ROOT / "training").parts), f"{path.name} reaches out of training"
        assert root not in {"nodes", "demo", "comfy_api", "comfy_extras", "comfy_execution", "server"}, module
        assert root not in COMFY_ROOTS or path.name in MAY_KNOW_COMFY, module


def test_comfy_api_appears_in_nodes_only():
    for path in sources(*ROOMS):
        if path.is_relative_to(ROOT / "nodes") or path.is_relative_to(ROOT / "demo" / "tiny_encoders"):
            continue
        assert not any(module.startswith("comfy_api") for _, module in imports(path)), path


def test_entry_point_is_v3_only():
    names = {
        target.id
        for node in ast.walk(ast.parse((ROOT / "__init__.py").read_text()))
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    assert "NODE_CLASS_MAPPINGS" not in names


def test_functions_stay_readable():
    lengths = []
    for path in sources(*ROOMS):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lengths.append((node.end_lineno - node.lineno + 1, f"{path.name}:{node.name}"))
    too_long = [entry for entry in lengths if entry[0] > 80]
    assert not too_long, too_long
    assert sorted(lengths)[int(0.9 * len(lengths))][0] <= 40


def test_node_execute_is_thin():
    for path in sources("nodes"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name == "execute":
                assert node.end_lineno - node.lineno + 1 <= 17, f"{path.name}:{node.lineno}"
