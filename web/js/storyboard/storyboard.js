/**
 * The storyboard: one card for each clip of a story, in a tab of the bottom panel and in the sidebar. Server side: nodes/storyboard.
 *
 * The schedule text of SVI Prompt Stream stays the only truth: every action is an edit of it, made by the server's own parser.
 */

import { Board } from "./board.js";
import { element } from "./dom.js";
import * as frontEnd from "./front_end.js";
import { Story } from "./story.js";
import { text } from "./texts.js";

const story = new Story();
/** @type {Map<boolean, Board>} the open views, by whether they are narrow */
const boards = new Map();

/** Show the board in a container; a container that has it already keeps it. */
function mount(container, narrow) {
  const board = boards.get(narrow);
  if (board && container.contains(board.element)) return;
  board?.destroy();
  boards.delete(narrow);
  try {
    boards.set(narrow, new Board(story, narrow));
    container.replaceChildren(boards.get(narrow).element);
    container.classList.add("svi-board-place");
  } catch (error) {
    console.error("SVI storyboard:", error);
    container.replaceChildren(element("p", "", { role: "alert", textContent: text("boardFailed", { reason: error.message }) }));
  }
}

function unmount(narrow) {
  boards.get(narrow)?.destroy();
  boards.delete(narrow);
}

frontEnd.loadStyle("./storyboard.css");
frontEnd.register({
  text,
  mount,
  unmount,
  onGraph: () => story.refresh(),
  onOpen: (node) => story.choose(node),
});
