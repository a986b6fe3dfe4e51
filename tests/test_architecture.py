"""The house: which folder may know which, how long things may be, what they may be called. Held by reading the tree."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PRODUCT = ("svi_core", "nodes", "training", "batch")
PACKAGES = (*PRODUCT, "comfyui", "dev", "demo", "benchmarks")
# The folders of a package, top floor first: a folder imports only from floors below it. "." is the package's own folder.
FLOORS = {
    "svi_core": [
        ("dry_run",),
        ("clips",),
        ("schedule",),
        ("conditioning",),
        ("recycling",),
        ("video",),
        ("store",),
        ("systems",),
        ("flow",),
        ("look",),
        ("files",),
        (".",),
    ],
    "nodes": [("__init__",), ("storyboard",), ("dry_run",), (".",), ("bridge",)],
    "training": [(".",), ("run",), ("method",), ("data",), ("model",), ("settings",)],
    "batch": [(".",), ("report",), ("scoring",), ("tables", "workflow")],
    "comfyui": [(".",)],
    "dev": [("workflows", "matrix"), (".",)],
    "demo": [(".",), ("models",), ("world", "tiny_encoders")],
}
# The packages below each package.
MAY_IMPORT = {
    "svi_core": set(),
    "nodes": {"svi_core"},
    "training": {"svi_core"},
    "batch": {"svi_core", "comfyui", "dev"},
    "comfyui": set(),
    "dev": {"comfyui"},
    "demo": {"comfyui", "dev", "svi_core", "batch"},
    "benchmarks": {"svi_core", "nodes", "training", "batch", "comfyui", "dev", "demo"},
}
COMFYUI = {"comfy", "comfy_extras", "comfy_execution", "folder_paths", "server", "latent_preview", "node_helpers"}
# Every file of the product that imports ComfyUI's modules; `comfy_api`, the interface for nodes, is not among them.
FILES_WITH_COMFYUI = {
    "nodes/bridge/attention.py",
    "nodes/bridge/attention_choices.py",
    "nodes/bridge/attention_kernels.py",
    "nodes/bridge/clip_times.py",
    "nodes/bridge/compiled.py",
    "nodes/bridge/guiders.py",
    "nodes/bridge/latents.py",
    "nodes/bridge/lean_decode.py",
    "nodes/bridge/lora_patches.py",
    "nodes/bridge/models.py",
    "nodes/bridge/queued_graph.py",
    "nodes/bridge/routes.py",
    "nodes/bridge/run_path.py",
    "nodes/bridge/sampling.py",
    "nodes/bridge/shown_progress.py",
    "nodes/bridge/vaes.py",
    "nodes/bridge/video_files.py",
    "nodes/continuation.py",
    "nodes/dance.py",
    "nodes/dry_run/plan.py",
    "nodes/dry_run/read_graph.py",
    "nodes/generate.py",
    "nodes/lora.py",
    "nodes/processed_frames.py",
    "nodes/schedule.py",
    "nodes/show_video.py",
    "nodes/step_by_step.py",
    "nodes/talk.py",
    "training/model/comfy_runtime.py",
    "training/model/encoders.py",
    "training/model/loading.py",
    "training/model/lora_file.py",
}
BANNED_STEMS = ("utils", "util", "helpers", "helper", "common", "misc", "manager")


def sources(*packages: str) -> list[Path]:
    return [path for package in packages for path in sorted((ROOT / package).rglob("*.py"))]


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(path: Path) -> Iterator[tuple[int, str, int]]:
    """Yield (relative level, dotted module, line) of every import in `path`, those inside functions too."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.level, node.module or "", node.lineno


def imported_files(path: Path) -> Iterator[tuple[Path, int]]:
    """Yield every file of this repository that `path` imports, with the line."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            names = [(alias.name.replace(".", "/"), ()) for alias in node.names]
            base = ROOT
        elif isinstance(node, ast.ImportFrom):
            base = path.parents[node.level - 1] if node.level else ROOT
            names = [((node.module or "").replace(".", "/"), [alias.name for alias in node.names])]
        else:
            continue
        for module, members in names:
            target = base / module
            found = [file for name in members if (file := as_file(target / name))]  # `from package import module`
            for file in found or [as_file(target)]:
                if file is not None:
                    yield file, node.lineno


def as_file(module: Path) -> Path | None:
    candidates = (module.with_name(f"{module.name}.py"), module / "__init__.py")
    return next((path for path in candidates if path.is_file() and path.is_relative_to(ROOT)), None)


def folder_of(path: Path) -> str:
    """Return the folder of a file inside its package, as FLOORS names it."""
    parts = path.relative_to(ROOT).parts
    if parts[0] == "nodes" and parts[1:] == ("__init__.py",):
        return "__init__"
    return parts[1] if len(parts) > 2 else "."


# ----------------------------------------------------------------------------------------------------------- floors


@pytest.mark.parametrize("package", FLOORS)
def test_every_folder_has_a_floor(package: str):
    folders = {folder_of(path) for path in sources(package)}
    assert folders == {folder for floor in FLOORS[package] for folder in floor}


@pytest.mark.parametrize("package", FLOORS)
def test_a_folder_imports_only_from_floors_below(package: str):
    floor = {folder: number for number, folders in enumerate(FLOORS[package]) for folder in folders}
    wrong = [
        f"{shown(path)}:{line} imports {shown(target)}"
        for path in sources(package)
        for target, line in imported_files(path)
        if target.is_relative_to(ROOT / package)
        and folder_of(target) != folder_of(path)
        and floor[folder_of(target)] <= floor[folder_of(path)]
        and not (target.name == "__init__.py" and target.parent in path.parents)  # a package of one's own
    ]
    assert not wrong, wrong


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_a_package_imports_only_from_packages_below(package: str):
    wrong = [
        f"{shown(path)}:{line} imports {shown(target)}"
        for path in sources(package)
        for target, line in imported_files(path)
        if (other := target.relative_to(ROOT).parts[0]) != package and other not in MAY_IMPORT[package]
    ]
    assert not wrong, wrong


def test_no_two_folders_need_each_other():
    needs: dict[Path, set[Path]] = defaultdict(set)
    for path in sources(*PACKAGES):
        own = path if path == ROOT / "nodes" / "__init__.py" else path.parent
        needs[own] |= {target.parent for target, _ in imported_files(path) if target.parent not in {own, *own.parents}}
    needs = {folder: {other for other in others if other in needs} for folder, others in needs.items()}
    while True:  # take away, floor after floor, the folders that need no other
        done = {folder for folder, others in needs.items() if not others}
        if not done:
            break
        needs = {folder: others - done for folder, others in needs.items() if folder not in done}
    assert not needs, {shown(folder): sorted(shown(other) for other in others) for folder, others in needs.items()}


def test_core_imports_relatively_and_never_reaches_out():
    for path in sources("svi_core"):
        depth = len(path.relative_to(ROOT / "svi_core").parts)
        for level, module, line in imports(path):
            assert level <= depth, f"{shown(path)}:{line} reaches out of svi_core: {module}"
            assert level or module.split(".")[0] not in PACKAGES, f"{shown(path)}:{line} must import {module} relatively"


def test_nodes_import_relatively():
    """ComfyUI loads the pack under a name made from its path, and `nodes` there means ComfyUI's nodes.py."""
    for path in sources("nodes"):
        for level, module, line in imports(path):
            assert level or module.split(".")[0] not in PACKAGES, f"{shown(path)}:{line} must import {module} relatively"


def test_training_never_reaches_out_of_its_package():
    for path in sources("training"):
        for level, module, line in imports(path):
            assert level <= len(path.relative_to(ROOT / "training").parts), f"{shown(path)}:{line} reaches out: {module}"


# ---------------------------------------------------------------------------------------------------------- ComfyUI


def test_comfyui_is_imported_in_the_named_files_only():
    found = {
        shown(path) for path in sources(*PRODUCT) if any(not level and root(m) in COMFYUI for level, m, _ in imports(path))
    }
    assert found == FILES_WITH_COMFYUI


def test_comfy_api_is_imported_in_nodes_and_the_tiny_encoders_only():
    found = {shown(path) for path in sources(*PACKAGES) if any(root(module) == "comfy_api" for _, module, _ in imports(path))}
    assert all(path.startswith(("nodes/", "demo/tiny_encoders/")) for path in found), found


def test_nodes_import_no_module_that_imports_comfyuis_nodes():
    for path in sources("nodes"):
        for _, module, line in imports(path):
            if module != "comfy_execution.graph_utils":  # the one part of it that does not import `nodes`
                assert root(module) not in {"comfy_extras", "comfy_execution"}, f"{shown(path)}:{line} imports {module}"


def test_the_entry_point_is_v3_only():
    names = {target.id for node in tree_of(ROOT / "__init__.py").body for target in getattr(node, "targets", ())}
    assert "NODE_CLASS_MAPPINGS" not in names


def root(module: str) -> str:
    return module.split(".")[0]


# ------------------------------------------------------------------------------------------------------------- size


def length(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> int:
    return node.end_lineno - node.lineno + 1


def definitions(kinds: tuple[type, ...], *packages: str) -> list[tuple[int, str]]:
    """Return (lines, place) of every definition of these kinds, the shortest first."""
    found = [(path, node) for path in sources(*packages) for node in ast.walk(tree_of(path)) if isinstance(node, kinds)]
    return sorted((length(node), f"{shown(path)}:{node.name}") for path, node in found)


def test_files_have_300_lines_at_most():
    lines = {shown(path): len(path.read_text(encoding="utf-8").splitlines()) for path in sources(*PACKAGES)}
    assert not {path: count for path, count in lines.items() if count > 300}


def test_classes_have_200_lines_at_most():
    assert not [entry for entry in definitions((ast.ClassDef,), *PACKAGES) if entry[0] > 200]


@pytest.mark.parametrize("package", PACKAGES)
def test_functions_stay_readable(package: str):
    lengths = definitions((ast.FunctionDef, ast.AsyncFunctionDef), package)
    assert not [entry for entry in lengths if entry[0] > 60]
    assert lengths[int(0.9 * len(lengths))][0] <= 25
    assert lengths[len(lengths) // 2][0] <= 10


def test_a_node_unpacks_calls_the_core_and_packs():
    executes = [entry for entry in definitions((ast.FunctionDef,), "nodes") if entry[1].endswith(":execute")]
    assert executes and executes[-1][0] <= 17, executes[-1]


# ------------------------------------------------------------------------------------------------------------ names


def test_no_file_has_a_name_that_says_nothing():
    files = [path for path in sources(*PACKAGES, "tests") if path.stem.lower().endswith(BANNED_STEMS)]
    assert not files, [shown(path) for path in files]


def public_names(path: Path) -> Iterator[str]:
    for node in tree_of(path).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names = [node.name]
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [target.id for target in targets if isinstance(target, ast.Name)]
        else:
            continue
        yield from (name for name in names if not name.startswith("_"))


def used_names(path: Path) -> Iterator[str]:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.ImportFrom):
            yield from (alias.name for alias in node.names)


USED_BY_TESTS_ONLY: dict[str, str] = {
    # "svi_core/room/module.py:name": "why it is there all the same",
}


def test_no_public_name_is_there_for_tests_only():
    used = {name for path in [*sources(*PACKAGES), ROOT / "__init__.py"] for name in used_names(path)}
    unused = {f"{shown(path)}:{name}" for path in sources(*PRODUCT) for name in public_names(path) if name not in used}
    assert unused == USED_BY_TESTS_ONLY.keys()


# ----------------------------------------------------------------------------------------------------------- README


def readme_tree() -> Iterator[tuple[str, list[str]]]:
    """Yield (line, its paths from the root) of the fenced tree in "How it is built".

    A line begins with one path or several and tells of them behind two spaces; what is indented below a folder is in it.
    A line whose first word is no path ("/" or "." in it) goes on with the text of the line above.
    """
    section = re.search(r"^## How it is built$(.*?)(?=^## |\Z)", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S)
    assert section, 'README.md has no section "How it is built"'
    fence = re.search(r"^```\w*\n(.*?)^```", section[1], re.M | re.S)
    assert fence, '"How it is built" has no fenced tree'
    above: list[tuple[int, str]] = []  # (indent, folder)
    for line in filter(str.strip, fence[1].splitlines()):
        if not re.match(r"\s*\S*[/.]", line):
            continue
        indent = len(line) - len(line.lstrip())
        above = [entry for entry in above if entry[0] < indent]
        names = re.split(r"\s{2,}", line.strip())[0].replace(",", " ").split()
        prefix = above[-1][1] if above else ""
        paths = [name if (ROOT / name).exists() and not (ROOT / prefix / name).exists() else prefix + name for name in names]
        if len(paths) == 1 and paths[0].endswith("/"):
            above.append((indent, paths[0]))
        yield line, paths


def test_every_path_in_readmes_tree_exists():
    missing = [(path, line) for line, paths in readme_tree() for path in paths if not list(ROOT.glob(path.rstrip("/")))]
    assert not missing, missing


def test_readmes_tree_names_every_folder_of_the_product():
    named = {path.rstrip("/") for _, paths in readme_tree() for path in paths}
    folders = {shown(path.parent) for path in sources(*PRODUCT)}
    assert folders <= named, folders - named


def test_every_file_that_contributing_names_exists():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    files = re.findall(
        r"`((?:svi_core|nodes|training|batch|comfyui|dev|demo|benchmarks|tests|web|locales)/[\w./]+\w\.\w+)`", text
    )
    examples = {"depth", "test_depth", "sketch"}  # the pages' new files
    assert len(files) > 40
    assert not [name for name in files if Path(name).stem not in examples and not (ROOT / name).exists()]
