/**
 * What is being made now, from ComfyUI's events and its queue: also a run that another tab or a script started.
 *
 * The events of a run's steps reach the browser that queued it; other browsers see which clip is being made, without its steps.
 */

import * as frontEnd from "./front_end.js";

const NEVER = -1;

export class Making {
  /** @param {import("./story.js").Story} story */
  constructor(story) {
    this.story = story;
    this.failure = null; // {index, message} of the clip at which the last run stopped
    this.forget();
    frontEnd.on("status", () => this.story.isWatched && this.look());
    frontEnd.on("reconnected", () => this.look());
    frontEnd.on("execution_start", () => this.look());
    frontEnd.on("execution_error", (detail) => this.#onError(detail));
    for (const event of ["execution_success", "execution_interrupted"]) frontEnd.on(event, () => this.#ended());
    frontEnd.on("progress_state", (detail) => this.#onSteps(detail));
    frontEnd.on("svi.clip", (clip) => this.#onClip(clip));
    frontEnd.on("b_preview_with_metadata", (detail) => this.#onPreview(detail));
  }

  /** Nothing is being made. */
  forget() {
    if (this.preview) URL.revokeObjectURL(this.preview);
    Object.assign(this, { promptId: null, clip: 0, clips: null, step: 0, steps: 0, part: 0, preview: null, stopAfter: NEVER });
  }

  get isRunning() {
    return this.promptId !== null;
  }

  /** The index of the card that is being made, or -1: the first clip that is not ready, of those that the run has not passed. */
  get index() {
    if (!this.isRunning) return NEVER;
    return this.story.cards.findIndex(({ state }, index) => index >= this.clip && state !== "ready" && state !== "dropped");
  }

  /** Return the state of a card and the reason for it: the plan's, with what is being made and what failed laid over it. */
  stateOf(index) {
    const { state, reason } = this.story.cards[index];
    if (index === this.index) return { state: "making", reason: "" };
    if (index === this.failure?.index && state !== "ready") return { state: "failed", reason: this.failure.message };
    return { state, reason };
  }

  /** Whether all steps of the clip are done, and its frames are decoded. */
  get isDecoding() {
    return this.steps > 0 && this.step === this.steps;
  }

  /** Seconds that the clip still takes, or null; the time of its frames after the last step is not known. */
  get secondsLeft() {
    if (this.isDecoding) return null;
    const whole = this.story.cards[this.index]?.work_seconds;
    return whole ? whole * (1 - this.part) : null;
  }

  /** Seconds until the whole run is done, or null. */
  get runSecondsLeft() {
    const { header, cards } = this.story;
    const whole = header?.work_seconds;
    if (!whole) return null;
    return Math.max(0, whole - (cards[this.index]?.work_seconds ?? 0) * this.part);
  }

  /** Ask the server what it runs. */
  async look() {
    const asked = (this.asked = (this.asked ?? 0) + 1);
    try {
      const running = (await frontEnd.runningPrompts()).find(({ graph }) => this.#isOurs(graph));
      if (asked !== this.asked) return; // a newer answer counts
      if ((running?.id ?? null) === this.promptId) return;
      this.forget();
      this.promptId = running?.id ?? null;
      if (running) this.failure = null;
      this.story.progressed();
      this.story.refresh();
    } catch (error) {
      console.debug("SVI storyboard: the queue cannot be read:", error);
    }
  }

  /** Whether a queued graph makes the video that we show: a loop that writes into the same folder. */
  #isOurs(graph) {
    const own = this.story.graph?.[this.story.node]?.inputs?.filename_prefix;
    return Object.values(graph).some(({ class_type, inputs }) => class_type === "SVIGenerate" && same(inputs.filename_prefix, own));
  }

  /** Stop the run once the clip at `index` is finished; again, and it goes on. */
  stopAfterClip(index) {
    this.stopAfter = this.stopAfter === index ? NEVER : index;
    this.story.progressed();
  }

  stop() {
    return frontEnd.interrupt(this.promptId);
  }

  #ended() {
    this.forget();
    this.story.progressed();
    this.look();
  }

  #onError({ prompt_id: promptId, node_id: node, exception_message: message }) {
    if (promptId === this.promptId && String(node) === this.story.node && this.index >= 0) {
      this.failure = { index: this.index, message: String(message).trim() };
    }
    this.#ended();
  }

  #onSteps({ prompt_id: promptId, nodes }) {
    if (promptId !== this.promptId) return;
    const progress = Object.values(nodes).find(({ node_id: id, state }) => id === this.story.node && state === "running");
    this.clips ??= this.story.header?.until_stopped ? 1 : this.story.header?.clips; // an edit meanwhile does not change the run
    if (!progress || !this.clips || progress.max < 2) return;
    const ofClip = progress.max / this.clips; // its steps, and one for its frames; see RunProgress.work
    const clip = Math.min(this.clips - 1, Math.floor(progress.value / ofClip));
    const done = progress.value - clip * ofClip;
    this.clip = Math.max(this.clip, clip);
    this.steps = Math.max(1, Math.round(ofClip) - 1);
    this.step = Math.min(this.steps, Math.floor(done));
    this.part = Math.min(1, done / ofClip);
    this.story.progressed();
  }

  #onClip({ run, index }) {
    if (run !== this.story.header?.run) return;
    Object.assign(this, { clip: index + 1, step: 0, part: 0 });
    if (index === this.stopAfter && this.isRunning) this.stop();
    if (!this.isRunning) this.look();
  }

  #onPreview({ blob, jobId, nodeId, displayNodeId }) {
    if (jobId !== this.promptId || ![nodeId, displayNodeId].includes(this.story.node)) return;
    if (this.preview) URL.revokeObjectURL(this.preview);
    this.preview = URL.createObjectURL(blob);
    this.story.progressed();
  }
}

function same(one, other) {
  return JSON.stringify(one) === JSON.stringify(other);
}
