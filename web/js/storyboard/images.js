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

  /** Upload an image and use it for the clip at `index`; images that come together are taken one after the other. */
  place(index, use, file) {
    const seen = this.story.edits.seen(use.options("", index).map(() => ({ clip: index }))); // an upload takes a while
    this.last = (this.last ?? Promise.resolve()).then(() => this.#placeNow(index, use, file, seen));
    return this.last;
  }

  async #placeNow(index, use, file, seen) {
    if (!file.type.startsWith("image/")) return this.story.say(text("dropNotImage", { name: file.name }), { isError: true });
    this.story.say(text("uploading", { name: file.name }));
    try {
      const image = await frontEnd.uploadImage(file);
      await this.story.caughtUp(); // the names and the size of another graph mean nothing here
      if (seen.number !== this.story.number) throw new Error(text("changedMeanwhile"));
      const { header } = this.story;
      const named = namedAnchors(await frontEnd.queuedGraph(), this.story.node);
      const known = [...named].find(([, shown]) => shown === image)?.[0];
      const name = known ?? freeName(file.name, [...named.keys(), ...(header?.anchors ?? [])]);
      if (!known && !header?.size) throw new Error(text("sizeUnknown"));
      const actions = use.options(name, index).map(([option, value]) => ({ do: "set_option", clip: index, name: option, value }));
      return await this.story.edits.make(actions, { seen, also: known ? undefined : () => this.#addAnchor(image, name) });
    } catch (error) {
      return this.story.say(text("uploadFailed", { name: file.name, reason: error.message }), { isError: true });
    }
  }

  #pick(onPick) {
    const field = element("input", "", { type: "file", accept: "image/*", hidden: true });
    field.addEventListener("change", () => {
      field.remove();
      if (field.files[0]) onPick(field.files[0]);
    });
    field.addEventListener("cancel", () => field.remove());
    document.body.append(field);
    field.click();
  }

  #addAnchor(image, name) {
    const { node, header } = this.story;
    const [width, height] = header.size;
    frontEnd.addAnchor(node, { image, name, encoder: { width, height, size_rule: "exact" } });
  }
}

/** Return the image of each SVI Named Anchor of a queued SVI Generate by its name; null for one that is no uploaded image. */
function namedAnchors(graph, node) {
  const behind = (facts, input) => (Array.isArray(facts?.inputs[input]) ? graph[facts.inputs[input][0]] : undefined);
  const [named, seen] = [new Map(), new Set()];
  for (let anchor = behind(graph[node], "anchors"); anchor && !seen.has(anchor); anchor = behind(anchor, "anchors")) {
    seen.add(anchor); // the front end lets nodes be wired in a ring
    const loader = behind(behind(anchor, "anchor"), "image");
    named.set(String(anchor.inputs.name), loader?.inputs.image ?? null);
  }
  return named;
}

function freeName(fileName, taken) {
  const stem = fileName.replace(/\.\w+$/, "").replace(/[^\p{L}\p{N}_.-]+/gu, "_").replace(/^_+|_+$/g, "").slice(0, 40) || "image";
  let name = stem;
  for (let number = 2; ["main", ...taken].includes(name); number++) name = `${stem}_${number}`;
  return name;
}
