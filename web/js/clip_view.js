/**
 * The view of a run's finished clips: a player, the facts of the selected clip, and a strip of all clips.
 *
 * Uses the DOM only. Prompts enter through textContent and attributes, never as HTML. The strip only has elements for visible
 * tiles, so a thousand clips cost as much as ten.
 */

import { textsOf } from "./texts.js";

const text = textsOf("clips");
const TILE_STEP = 90; // px from tile to tile, see .svi-clips-tile
const TILES_BEYOND = 2; // extra tiles on either side of the visible ones
const UNMEASURED_WIDTH = 400; // px, before the strip has a layout

/**
 * @typedef {object} Clip
 * @property {number} index 0-based place in the schedule
 * @property {string} key of the clip in the run's folder
 * @property {string} prompt
 * @property {number} seed
 * @property {number} num_frames in the video
 * @property {number} seconds to make it; 0 if unknown
 * @property {boolean} reused from an earlier run
 * @property {boolean} kept never removed to save space
 * @property {{filename: string, subfolder: string, type: string}} file for ComfyUI's /view route
 */

export class ClipView {
  /**
   * @param {object} given
   * @param {(clip: Clip) => string} given.urlOf address of a clip's video
   * @param {(clip: Clip, keep: boolean) => void} given.onKeep the user marks or unmarks a clip
   * @param {(clip: Clip) => void} given.onReroll the user wants another take from this clip on
   */
  constructor({ urlOf, onKeep, onReroll }) {
    this.urlOf = urlOf;
    this.onKeep = onKeep;
    this.onReroll = onReroll;
    /** @type {Clip[]} */
    this.clips = [];
    this.position = -1; // of the selected clip in `clips`
    /** @type {Map<number, HTMLElement>} tiles in sight, by position */
    this.tiles = new Map();
    this.#build();
  }

  get selected() {
    return this.clips[this.position];
  }

  /** Show the clips of a run, with the last one paused in the player. */
  setClips(clips) {
    const before = this.selected;
    this.clips = clips;
    const same = before ? clips.findIndex((clip) => clip.key === before.key && clip.index === before.index) : -1;
    this.#layOut();
    this.select(same >= 0 ? same : clips.length - 1);
  }

  /**
   * Add a clip that was just finished and remove later ones, which belong to the previous video. If the last clip was
   * selected, play the new one.
   */
  addClip(clip) {
    const following = this.position === this.clips.length - 1;
    const watched = this.selected;
    this.clips = [...this.clips.filter((known) => known.index < clip.index), clip];
    this.#layOut();
    const still = this.clips.findIndex((known) => known.key === watched?.key && known.index === watched?.index);
    const next = following || still < 0 ? this.clips.length - 1 : still;
    this.select(next, { play: next === this.clips.length - 1 });
  }

  /** Set whether the clip `key` is kept; it may appear several times. */
  setKept(key, kept) {
    this.clips = this.clips.map((known) => (known.key === key ? { ...known, kept } : known));
    this.#layOut();
    this.select(this.position);
  }

  /** Put the clip at `position` into the player. */
  select(position, { play = false, focus = false } = {}) {
    this.position = Math.max(-1, Math.min(position, this.clips.length - 1));
    this.#reveal();
    this.#drawTiles();
    this.#drawFacts();
    this.#load(play);
    if (focus) this.tiles.get(this.position)?.focus({ preventScroll: true });
  }

  /** Show a notice to the user; "" clears it. */
  say(message, isError = false) {
    this.notice.textContent = message;
    this.notice.hidden = !message;
    this.notice.classList.toggle("is-error", isError);
  }

  destroy() {
    this.resizing.disconnect();
    this.clips = [];
    this.select(-1);
  }

  #build() {
    this.video = element("video", "", { loop: true, muted: true, playsInline: true, controls: true, preload: "auto" });
    this.video.setAttribute("aria-label", text("selected"));
    this.video.setAttribute("controlslist", "nodownload noplaybackrate noremoteplayback");
    this.video.disablePictureInPicture = true;
    this.video.addEventListener("error", () => this.#cannotPlay());
    this.notice = element("div", "svi-clips-notice", { hidden: true });
    this.notice.setAttribute("role", "status");
    this.facts = element("div", "svi-clips-facts");
    this.prompt = element("div", "svi-clips-prompt");
    this.keepButton = element("button", "", { type: "button" });
    this.keepButton.addEventListener("click", () => this.onKeep(this.selected, !this.selected.kept));
    this.rerollButton = element("button", "", { type: "button", textContent: text("reroll") });
    this.rerollButton.addEventListener("click", () => this.onReroll(this.selected));
    this.track = element("div", "svi-clips-track");
    this.strip = element("div", "svi-clips-strip");
    this.strip.setAttribute("role", "listbox");
    this.strip.setAttribute("aria-label", text("strip"));
    this.strip.setAttribute("aria-orientation", "horizontal");
    this.strip.append(this.track);
    this.strip.addEventListener("scroll", () => this.#drawTiles(), { passive: true });
    this.strip.addEventListener("wheel", (event) => this.#scrollByWheel(event), { passive: false });
    this.strip.addEventListener("keydown", (event) => this.#moveByKey(event));
    this.resizing = new ResizeObserver(() => {
      this.#reveal(); // also when the strip enters the page, which resets scrolling
      this.#drawTiles();
    });
    this.resizing.observe(this.strip);
    const stage = element("div", "svi-clips-stage");
    stage.append(this.video, this.notice);
    this.row = element("div", "svi-clips-row");
    this.row.append(this.facts, this.keepButton, this.rerollButton);
    this.element = element("section", "svi-clips");
    this.element.setAttribute("aria-label", text("title"));
    this.element.append(stage, this.row, this.prompt, this.strip);
  }

  #layOut() {
    this.track.style.width = `${this.clips.length * TILE_STEP}px`;
  }

  /** Scroll the strip to the selected tile. */
  #reveal() {
    const left = Math.max(0, this.position) * TILE_STEP;
    const width = this.strip.clientWidth || UNMEASURED_WIDTH;
    if (left < this.strip.scrollLeft) this.strip.scrollLeft = left;
    if (left + TILE_STEP > this.strip.scrollLeft + width) this.strip.scrollLeft = left + TILE_STEP - width;
  }

  #drawTiles() {
    const { scrollLeft, clientWidth } = this.strip;
    const first = Math.max(0, Math.floor(scrollLeft / TILE_STEP) - TILES_BEYOND);
    const last = Math.ceil((scrollLeft + (clientWidth || UNMEASURED_WIDTH)) / TILE_STEP) + TILES_BEYOND;
    for (const [position, tile] of this.tiles) {
      const clip = this.clips[position];
      if (position >= first && position < last && clip?.file.filename === tile.clip.file.filename) {
        this.#describe(tile, clip);
      } else {
        unload(tile.querySelector("video"));
        tile.remove();
        this.tiles.delete(position);
      }
    }
    for (let position = first; position < Math.min(last, this.clips.length); position++) {
      if (!this.tiles.has(position)) this.#addTile(position);
      const tile = this.tiles.get(position);
      tile.setAttribute("aria-selected", String(position === this.position));
      tile.tabIndex = position === this.position ? 0 : -1;
      tile.setAttribute("aria-setsize", String(this.clips.length));
    }
  }

  #addTile(position) {
    const clip = this.clips[position];
    const tile = element("div", "svi-clips-tile");
    tile.setAttribute("role", "option");
    tile.setAttribute("aria-posinset", String(position + 1));
    tile.style.left = `${position * TILE_STEP + 2}px`;
    const picture = element("video", "", { muted: true, playsInline: true, preload: "metadata", tabIndex: -1 });
    picture.setAttribute("aria-hidden", "true");
    picture.src = `${this.urlOf(clip)}#t=0.001`; // without a time some browsers show no first frame
    tile.append(picture, element("span", "svi-clips-number"), element("span", "svi-clips-seconds"));
    tile.append(element("span", "svi-clips-star", { textContent: "\u2605" }));
    tile.addEventListener("click", () => this.select(position, { play: true, focus: true }));
    this.#describe(tile, clip);
    this.tiles.set(position, tile);
    this.track.append(tile);
  }

  #describe(tile, clip) {
    tile.clip = clip;
    tile.querySelector(".svi-clips-number").textContent = String(clip.index + 1);
    tile.querySelector(".svi-clips-seconds").textContent = duration(clip.seconds);
    tile.querySelector(".svi-clips-star").hidden = !clip.kept;
    tile.title = `${factsOf(clip).join(" \u00b7 ")}\n${clip.prompt}`;
    tile.setAttribute("aria-label", `${factsOf(clip).join(", ")}: ${clip.prompt}`);
  }

  #drawFacts() {
    const clip = this.selected;
    for (const part of [this.row, this.prompt, this.strip]) part.hidden = !clip;
    if (!clip) return;
    const [name, ...others] = factsOf(clip);
    this.facts.replaceChildren(element("strong", "", { textContent: name }), ` \u00b7 ${others.join(" \u00b7 ")}`);
    this.facts.title = [...factsOf(clip), text("frames", { n: clip.num_frames })].join(" \u00b7 ");
    this.prompt.textContent = clip.prompt;
    this.prompt.title = clip.prompt;
    this.keepButton.textContent = text(clip.kept ? "unprotect" : "protect");
    this.keepButton.setAttribute("aria-pressed", String(clip.kept));
    this.keepButton.title = text(clip.kept ? "unprotectHint" : "protectHint");
    this.rerollButton.title = text("rerollHint", { n: clip.index + 1 });
  }

  #load(play) {
    const clip = this.selected;
    if (!clip) {
      this.shown = null;
      unload(this.video);
      return;
    }
    if (this.shown !== clip.file.filename) {
      this.shown = clip.file.filename;
      this.say("");
      this.video.controls = true;
      this.video.src = this.urlOf(clip);
    }
    if (play) this.video.play().catch(() => {}); // the browser may forbid it, or the next clip may interrupt it
  }

  #cannotPlay() {
    if (!this.selected) return;
    this.video.controls = false;
    this.say(text("cannotPlay", { n: this.selected.index + 1 }), true);
  }

  #scrollByWheel(event) {
    if (event.ctrlKey || this.strip.scrollWidth <= this.strip.clientWidth) return; // the canvas zooms
    event.preventDefault();
    event.stopPropagation();
    this.strip.scrollLeft += event.deltaY + event.deltaX;
  }

  #moveByKey(event) {
    const inSight = Math.max(1, Math.floor(this.strip.clientWidth / TILE_STEP));
    const target = {
      ArrowLeft: this.position - 1,
      ArrowRight: this.position + 1,
      PageUp: this.position - inSight,
      PageDown: this.position + inSight,
      Home: 0,
      End: this.clips.length - 1,
      Enter: this.position,
      " ": this.position,
    }[event.key];
    if (target === undefined || event.ctrlKey || event.metaKey || event.altKey) return; // Ctrl+Enter is ComfyUI's Run
    event.preventDefault();
    event.stopPropagation();
    this.select(Math.max(0, target), { play: true, focus: true });
  }
}

/** Return the facts of a clip as texts, its name first. */
function factsOf(clip) {
  const facts = [text("clip", { n: clip.index + 1 }), text("seed", { seed: String(clip.seed) })];
  if (clip.seconds) facts.push(text("madeIn", { time: duration(clip.seconds) }));
  if (clip.reused) facts.push(text("reused"));
  if (clip.kept) facts.push(text("isProtected"));
  return facts;
}

function duration(seconds) {
  if (!seconds) return "";
  if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

function element(tag, className, properties = {}) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  return Object.assign(made, properties);
}

/** Release a video's file and decoder. */
function unload(video) {
  video.removeAttribute("src");
  video.load();
}
