"""ComfyUI's own TorchCompileModel in front of SVI Generate, on a real ComfyUI process: the same video, and its clips are known.

The backend "cudagraphs" does nothing on a CPU beyond what every compilation does, so results are equal bit for bit.
"""

import pytest
from safetensors.torch import load_file

from benchmarks.server_run import forget_cached
from tests.e2e.graphs import loop_graph, node

pytestmark = pytest.mark.e2e


def compiled_graph(image: str, name: str):
    graph = loop_graph(image, clips=2, cfg=1.0, filename_prefix=f"svi/{name}")
    for model in ("model", "low"):
        graph[f"compiled_{model}"] = node("TorchCompileModel", model=[model, 0], backend="cudagraphs")
    graph["generate"]["inputs"] |= {"model": ["compiled_model", 0], "model_low_noise": ["compiled_low", 0]}
    return graph


def latents_of(server, name: str) -> dict[str, bytes]:
    """Return each clip's numbers by its file's name, which is its key."""
    folder = server.output_directory / "svi" / name / "clips"
    return {path.name: load_file(path)["latent"].numpy().tobytes() for path in folder.glob("*.safetensors")}


@pytest.mark.slow
def test_a_compiled_model_makes_the_same_clips_and_knows_them_again(comfy_server, reference_image):
    server, image = comfy_server, comfy_server.add_input(reference_image)
    server.run(loop_graph(image, clips=2, cfg=1.0, filename_prefix="svi/not_compiled"))
    server.run(compiled_graph(image, "compiled"))
    plain, compiled = (latents_of(server, name) for name in ("not_compiled", "compiled"))
    assert len(plain) == 2 and sorted(plain.values()) == sorted(compiled.values())
    assert not plain.keys() & compiled.keys(), "a compiled model may round otherwise, so its clips have keys of their own"
    forget_cached(server)
    server.run(compiled_graph(image, "compiled"))
    assert latents_of(server, "compiled").keys() == compiled.keys(), "models loaded and compiled anew find their clips again"
