"""Nodes for the tests of loops: a stage that notes when it works, and core's Start Loop and End Loop where ComfyUI has none.

Core has its loop nodes after 0.33. The stand-ins have their names, inputs and outputs, as far as the tests use them: End Loop
copies the nodes between both by node expansion, once for each iteration.
"""

import time
from pathlib import Path

from comfy_execution.graph_utils import is_link

from nodes import NODE_CLASS_MAPPINGS as CORE_NODES


class AnyType(str):
    """A type name that equals every other."""

    def __ne__(self, other):
        return False


ANY = AnyType("*")
INDEX, IS_FIRST, IS_LAST, _ITEM, CARRIED = range(5)  # outputs of Start Loop


class StartLoop:
    RETURN_TYPES = ("INT", "BOOLEAN", "BOOLEAN", ANY, ANY)
    FUNCTION = "begin"
    CATEGORY = "tests"

    @classmethod
    def INPUT_TYPES(cls):
        required = {"mode": (["simple"],), "mode.num_iterations": ("INT", {"default": 4, "min": 1})}
        required["cache_iterations"] = ("BOOLEAN", {"default": False})
        return {"required": required, "optional": {"initial_iteration_value": (ANY,)}}

    def begin(self, **inputs):
        raise RuntimeError("End Loop replaces the links to Start Loop")


class EndLoop:
    RETURN_TYPES = (ANY,)
    FUNCTION = "end"
    CATEGORY = "tests"

    @classmethod
    def INPUT_TYPES(cls):
        link = (ANY, {"rawLink": True, "lazy": True})
        return {
            "required": {"accumulate": ("BOOLEAN", {"default": False})},
            "optional": {"output_value": link, "next_iteration_value": link},
            "hidden": {"dynprompt": "DYNPROMPT", "unique_id": "UNIQUE_ID"},
        }

    def end(self, accumulate, output_value, next_iteration_value, dynprompt, unique_id):
        start, body = self.between(unique_id, dynprompt)
        given = dynprompt.get_node(start)["inputs"]
        carried, last = given["initial_iteration_value"], given["mode.num_iterations"] - 1
        nodes = {}
        for index in range(last + 1):
            values = {INDEX: index, IS_FIRST: index == 0, IS_LAST: index == last, CARRIED: carried}
            names = {node: f"{unique_id}.{index}.{node}" for node in body}

            def copied(entry, names=names, values=values):
                if not is_link(entry):
                    return entry
                return values[entry[1]] if entry[0] == start else [names.get(entry[0], entry[0]), entry[1]]

            for node, name in names.items():
                original = dynprompt.get_node(node)
                inputs = {key: copied(entry) for key, entry in original["inputs"].items()}
                nodes[name] = {"class_type": original["class_type"], "inputs": inputs}
            carried, result = copied(next_iteration_value), copied(output_value)
        return {"result": (result,), "expand": nodes}

    def between(self, end, dynprompt):
        """Return the Start Loop before `end`, and the nodes between both."""
        found, starts = {}, []

        def depends(node):
            if node not in found:
                entry = dynprompt.get_node(node)
                if entry["class_type"] == "StartLoop":
                    starts.append(node)
                    return True
                followed = [
                    depends(value[0]) for value in entry["inputs"].values() if is_link(value)
                ]  # all, for what they note
                found[node] = any(followed)
            return found[node]

        depends(end)
        return starts[0], [node for node, inside in found.items() if inside and node != end]


class Stage:
    """Enlarge frames to twice their size, and note in a file when it works."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "work"
    CATEGORY = "tests"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"images": ("IMAGE",), "log": ("STRING", {}), "seconds": ("FLOAT", {"default": 0.0})}}

    def work(self, images, log, seconds):
        with Path(log).open("a") as file:
            file.write(f"{len(images)}\n")
        time.sleep(seconds)
        return (images.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2),)


NODE_CLASS_MAPPINGS = {"TestStage": Stage} | ({} if "StartLoop" in CORE_NODES else {"StartLoop": StartLoop, "EndLoop": EndLoop})
