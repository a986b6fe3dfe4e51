/** The pack's routes for the storyboard; server side: nodes/storyboard. */

import { text } from "./texts.js";

/** A refusal of the server. `line` and `column` (from 1) say where in the text, or are null; `fix` names an action that helps. */
export class Refused extends Error {
  constructor({ error, line = null, column = null, fix = null }) {
    super(error);
    Object.assign(this, { line, column, fix });
  }
}

export class StoryServer {
  /** @param {(route: string, options?: object) => Promise<Response>} fetchRoute of the server that the page came from */
  constructor(fetchRoute) {
    this.fetchRoute = fetchRoute;
  }

  /** Return the plan of a queued graph. */
  plan(prompt, node) {
    return this.#ask("/svi/plan", node === null ? { prompt } : { prompt, node });
  }

  /** Return the schedule's text after an action; nothing in the graph changes. */
  edit(request) {
    return this.#ask("/svi/edit", request);
  }

  /** Return all stored takes of a clip. */
  async takes(run, index) {
    return (await this.#ask(`/svi/takes?${new URLSearchParams({ run, index })}`)).takes;
  }

  /** Return the badges of a stored clip. */
  async look(address) {
    return (await this.#ask(address)).badges;
  }

  /** Protect a clip from removal to save space, or no longer. */
  async keep(run, key, keep) {
    return (await this.#ask("/svi/keep", { run, key, keep })).kept;
  }

  async #ask(route, body) {
    const posted = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
    const response = await this.fetchRoute(route, body && posted).catch(({ message }) => {
      throw new Refused({ error: text("offline", { reason: message }) });
    });
    const answer = await response.json().catch(() => ({ error: text("answered", { status: `${response.status} ${response.statusText}` }) }));
    if (!response.ok) throw new Refused(answer);
    return answer;
  }
}
