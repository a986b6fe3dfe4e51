/**
 * Where clips went since the cards were drawn. A new plan takes a moment; until it is there, what a user does to a card still means the
 * clip that the card shows.
 */

const PLACED_BEFORE = new Set(["insert"]); // their `clip` is a place between clips

export class Moves {
  shown = 0; // how many edits the cards that are shown include
  #maps = [];

  /** How many edits were made. */
  get now() {
    return this.#maps.length;
  }

  /** Note what edits did to the places of clips; return whether clips moved. */
  note(actions) {
    const maps = actions.map(mapOf).filter(Boolean);
    this.#maps.push(...maps);
    return maps.length > 0;
  }

  /** Return `actions`, which mean the clips of `since` edits ago, for the clips as they are now; null if one of them is gone. */
  placed(actions, since) {
    const placed = actions.map((action) => {
      const made = { ...action };
      if ("clip" in action) made.clip = this.#placeOf(action.clip, since, PLACED_BEFORE.has(action.do));
      if ("to" in action) made.to = this.#placeOf(action.to, since, true);
      return made;
    });
    return placed.some(({ clip, to }) => clip === null || to === null) ? null : placed;
  }

  #placeOf(index, since, isBetween) {
    return this.#maps.slice(since).reduce((at, map) => (at === null ? null : map(at, isBetween)), index);
  }
}

/** Return what an edit makes of the place of a clip, or of a place between clips; undefined for one that moves none. */
function mapOf({ do: kind, clip, to }) {
  const shiftedFrom = (first) => (at) => (at >= first ? at + 1 : at);
  if (kind === "insert") return shiftedFrom(clip);
  if (kind === "duplicate" || kind === "split") return shiftedFrom(clip + 1);
  if (kind === "delete") return (at, isBetween) => (at > clip ? at - 1 : at < clip || isBetween ? at : null);
  if (kind === "move") {
    return (at) => {
      if (at === clip) return to;
      const without = at > clip ? at - 1 : at;
      return without >= to ? without + 1 : without;
    };
  }
  return undefined;
}
