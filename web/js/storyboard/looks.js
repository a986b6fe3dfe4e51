/** The badges of stored clips. The server decodes a clip to make them, so only clips in sight are asked for, two at a time. */

const AT_ONCE = 2;
const MAX_WAITING = 40; // the newest ones, when a user scrolls through a long story

export class Looks {
  /**
   * @param {import("./story.js").Story} story
   * @param {(index: number) => void} onArrive
   */
  constructor(story, onArrive) {
    Object.assign(this, { story, onArrive, running: 0, waiting: [] });
    /** @type {Map<string, object[]>} badges by address */
    this.known = new Map();
  }

  /** Put the badges of a clip on its card, and ask for them first where they are not known. */
  ask(index) {
    const clip = this.story.cards[index];
    if (!clip?.look || clip.badges?.length) return;
    const badges = this.known.get(clip.look);
    if (badges === undefined) {
      this.known.set(clip.look, []);
      this.waiting.push({ index, address: clip.look });
      if (this.waiting.length > MAX_WAITING) this.known.delete(this.waiting.shift().address); // asked again when it is in sight again
      this.#next();
    } else if (badges.length) {
      clip.badges = badges;
      this.onArrive(index);
    }
  }

  async #next() {
    if (this.running >= AT_ONCE || !this.waiting.length) return;
    const { index, address } = this.waiting.pop();
    this.running++;
    try {
      this.known.set(address, await this.story.server.look(address));
      this.ask(index);
    } catch (error) {
      console.debug("SVI storyboard: no badges:", error.message); // they are shown only where they can be had
    } finally {
      this.running--;
      this.#next();
    }
  }
}
