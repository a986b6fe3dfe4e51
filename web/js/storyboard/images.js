/** Images that become anchors: uploaded through ComfyUI, named in the graph, and written into the text in one undo step. */

import { element } from "./dom.js";
import * as frontEnd from "./front_end.js";
import { openMenu } from "./popup.js";
import { text } from "./texts.js";

/** What an image can be, in the order of the drop zones, and the options that say so. */
export const USES = [
  { label: "dropAnchor", options: (name) => [["anchor", name]] },
  {
    label: "dropCut",
    options: (name, index) => [
      ["anchor", name],
      ["cut", index ? true : null], // the first clip begins from its anchor anyway
    ],
  },
  { label: "dropEnd", options: (name) => [["end", name]] },
];

export class Images {
  /** @param {import("./story.js").Story} story */
  constructor(story) {
    this.story = story;
  }

  /** Ask what an image shall be, and for the image without `file`. */
  ask(index, anchor, file) {
    const choose = (use) => (file ? this.place(index, use, file) : this.#pick((picked) => this.place(index, use, picked)));
    const items = USES.map((use) => ({ text: text(use.label), run: () => choose(use) }));
    openMenu(anchor, text("chooseImage"), [{ text: text("chooseImage") }, ...items]);
  }

  /** Upload an image and use it for the clip at `index`. */
  async place(index, use, file) {
    if (!file.type.startsWith("image/")) return this.story.say(text("dropNotImage", { name: file.name }), { isError: true });
    this.story.say(text("uploading", { name: file.name }));
    let image;
    try {
      image = await frontEnd.uploadImage(file);
    } catch (error) {
      return this.story.say(text("uploadFailed", { name: file.name, reason: error.message }), { isError: true });
    }
    const known = this.#knownName(image);
    const name = known ?? this.#freeName(file.name);
    const actions = use.options(name, index).map(([option, value]) => ({ do: "set_option", clip: index, name: option, value }));
    return this.story.edit(actions, { also: known ? undefined : () => this.#addAnchor(image, name) });
  }

  #pick(onPick) {
    const field = element("input", "", { type: "file", accept: "image/*" });
    field.addEventListener("change", () => field.files[0] && onPick(field.files[0]));
    field.click();
  }

  #addAnchor(image, name) {
    const { node, header } = this.story;
    const [width, height] = header.size;
    frontEnd.addAnchor(node, { image, name, encoder: { width, height, size_rule: "exact" } });
  }

  /** Return the name of the anchor that shows the uploaded image already, if there is one. */
  #knownName(image) {
    const { graph, node } = this.story;
    const origin = (id, input) => graph[graph[id]?.inputs[input]?.[0]] && graph[id].inputs[input][0];
    for (let named = origin(node, "anchors"); named; named = origin(named, "anchors")) {
      const encode = origin(named, "anchor");
      const loader = encode && origin(encode, "image");
      if (loader && graph[loader].inputs.image === image && typeof graph[named].inputs.name === "string") return graph[named].inputs.name;
    }
    return undefined;
  }

  #freeName(fileName) {
    const stem = fileName.replace(/\.\w+$/, "").replace(/[^\p{L}\p{N}_.-]+/gu, "_").replace(/^_+|_+$/g, "").slice(0, 40) || "image";
    const taken = new Set(["main", ...(this.story.header.anchors ?? [])]);
    let name = stem;
    for (let number = 2; taken.has(name); number++) name = `${stem}_${number}`;
    return name;
  }
}
