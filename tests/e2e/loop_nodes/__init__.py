"""Generic loop nodes for the tests: a start and an end that carry one value of any type round the nodes between them.

ComfyUI 0.30 has none of its own yet. The end knows nothing of what it repeats: it copies the nodes between start and end by
node expansion, with the carried value as the new initial one, until the count is reached.
"""

from comfy_execution.graph_utils import GraphBuilder, is_link


class AnyType(str):
    """A type name that equals every other."""

    def __ne__(self, other):
        return False


ANY = AnyType("*")


class LoopStart:
    RETURN_TYPES = ("LOOP", ANY)
    FUNCTION = "begin"
    CATEGORY = "tests"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"initial": (ANY,)}}

    def begin(self, initial):
        return ("loop", initial)


class LoopEnd:
    RETURN_TYPES = (ANY,)
    FUNCTION = "end"
    CATEGORY = "tests"

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {"loop": ("LOOP", {"rawLink": True}), "value": (ANY,), "count": ("INT", {"default": 1, "min": 1})},
            "hidden": {"dynprompt": "DYNPROMPT", "unique_id": "UNIQUE_ID"},
        }

    def end(self, loop, value, count, dynprompt, unique_id):
        if count == 1:
            return (value,)
        start = loop[0]
        body = self.between(start, unique_id, dynprompt)
        graph = GraphBuilder()
        copies = {old: graph.node(dynprompt.get_node(old)["class_type"], old) for old in body}
        for old, copy in copies.items():
            for name, entry in dynprompt.get_node(old)["inputs"].items():
                link = is_link(entry) and entry[0] in copies
                copy.set_input(name, copies[entry[0]].out(entry[1]) if link else entry)
        copies[start].set_input("initial", value)
        copies[unique_id].set_input("count", count - 1)
        return {"result": (copies[unique_id].out(0),), "expand": graph.finalize()}

    def between(self, start, end, dynprompt):
        """Return the ids of the nodes on a path from `start` to `end`."""
        found = {start: True}

        def depends(node):
            if node not in found:
                inputs = dynprompt.get_node(node)["inputs"].values()
                followed = [depends(entry[0]) for entry in inputs if is_link(entry)]  # all of them, for what they note
                found[node] = any(followed)
            return found[node]

        depends(end)
        return [node for node, inside in found.items() if inside]


NODE_CLASS_MAPPINGS = {"TestLoopStart": LoopStart, "TestLoopEnd": LoopEnd}
