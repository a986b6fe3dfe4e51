/** The takes of a clip: watch one, compare two side by side, use one. And the sheet that plays clips one after the other. */

import { button, duration, element } from "./dom.js";
import * as frontEnd from "./front_end.js";
import { closePopup, openPopup } from "./popup.js";
import { text } from "./texts.js";

/** Show the stored takes of the clip at `index`. */
export async function openTakes(story, index, anchor, onUse) {
  let takes;
  const [clip, before, { number }] = [story.cards[index], story.cards[index - 1], story];
  try {
    takes = await story.server.takes(story.header.run, index);
  } catch (error) {
    return story.say(error.message, { isError: true });
  }
  if (story.number !== number) return; // another story was chosen meanwhile
  if (!takes.length) return story.say(text("noTakes"));
  const parent = clip.effective.cut ? "" : (before?.key ?? "");
  const list = element("div", "svi-takes");
  const shown = takes.filter((take) => take.preview);
  for (const take of takes) list.append(takeRow(story, index, take, { clip, parent, onUse }));
  const compare = button(text("compare"), () => compareTakes(index, shown, clip), { className: "is-main" });
  compare.hidden = shown.length < 2;
  const content = element("div", "", {}, [
    element("h3", "svi-board-popup-title", { textContent: text("takesTitle", { n: index + 1 }) }),
    list,
    element("div", "svi-board-field-end", {}, [compare]),
  ]);
  openPopup(anchor, content, { label: text("takesTitle", { n: index + 1 }) });
  list.querySelector("button:not(:disabled)")?.focus({ preventScroll: true });
}

function takeRow(story, index, take, { clip, parent, onUse }) {
  const isUsed = take.key === clip.key;
  const facts = [text("takeSeed", { seed: String(take.seed) }), take.options, take.seconds ? duration(take.seconds) : ""];
  const notes = [take.preview ? "" : text("latentOnly"), isJump(take, parent) ? text("otherParent") : ""].filter(Boolean).join(" ");
  const watch = button(text("watch"), () => watchTakes(index, [take], clip));
  watch.disabled = !take.preview;
  const use = button(text(isUsed && clip.pin ? "used" : "use"), () => {
    closePopup();
    onUse(take.key);
  });
  use.disabled = !story.canEdit || (isUsed && Boolean(clip.pin));
  const picture = element("img", "", { alt: "", loading: "lazy" });
  if (take.picture) picture.src = frontEnd.routeUrl(take.picture);
  return element("div", `svi-take ${isUsed ? "is-used" : ""}`, {}, [
    picture,
    element("div", "svi-take-facts", {}, [
      element("strong", "", { textContent: text("takeName", { number: String(take.number) }) + (isUsed ? ` · ${text("used")}` : "") }),
      element("span", "", { textContent: facts.filter(Boolean).join(" · ") }),
      element("span", "svi-take-prompt", { textContent: take.prompt, title: take.prompt }),
      element("span", "svi-take-note", { textContent: notes, hidden: !notes }),
    ]),
    watch,
    use,
  ]);
}

/** Whether a take continues another clip than the one that is shown before it. */
function isJump({ parent }, shownParent) {
  return Boolean(parent) && Boolean(shownParent) && parent !== shownParent;
}

function compareTakes(index, takes, clip) {
  const used = takes.find((take) => take.key === clip.key) ?? takes[0];
  const other = takes.findLast((take) => take !== used);
  watchTakes(index, takes, clip, [used, other]);
}

/** Show takes side by side, in step; each side chooses its take. */
function watchTakes(index, takes, clip, sides = takes) {
  const videos = [];
  const row = element("div", "svi-compare");
  for (const take of sides) {
    const video = element("video", "", { loop: true, muted: true, playsInline: true, controls: sides.length === 1, autoplay: true });
    const choice = element("select", "", { "aria-label": text("compareTitle", { n: index + 1 }) });
    for (const each of takes) choice.append(new Option(`${text("takeName", { number: String(each.number) })} · ${text("takeSeed", { seed: String(each.seed) })}`, each.key));
    const show = () => {
      video.src = frontEnd.fileUrl(takes.find(({ key }) => key === choice.value).preview);
      for (const each of videos) each.currentTime = 0; // in step
    };
    choice.value = take.key;
    choice.addEventListener("change", show);
    videos.push(video);
    row.append(element("figure", "", {}, [video, element("figcaption", "", {}, [choice])]));
    show();
  }
  openSheet(text(sides.length > 1 ? "compareTitle" : "takesTitle", { n: index + 1 }), row, videos);
}

/** Play the clips from `index` on, one after the other. */
export function watchClips(story, index = 0) {
  const clips = story.cards.filter((clip) => clip.index >= index && clip.preview);
  if (!clips.length) return story.say(text("nothingToPlay"));
  const video = element("video", "", { muted: true, playsInline: true, controls: true, autoplay: true });
  const caption = element("figcaption");
  let position = 0;
  const show = () => {
    video.src = frontEnd.fileUrl(clips[position].preview);
    caption.textContent = `${text("clip", { n: clips[position].index + 1 })} · ${clips[position].prompt}`;
  };
  const next = () => {
    position += 1;
    if (position < clips.length) show();
  };
  video.addEventListener("ended", next);
  video.addEventListener("error", next); // a clip that is gone is passed over
  show();
  openSheet(text("title"), element("div", "svi-compare", {}, [element("figure", "", {}, [video, caption])]), [video]);
}

function openSheet(title, content, videos) {
  const close = button(text("close"), closePopup);
  const head = element("div", "svi-sheet-head", {}, [element("h3", "svi-board-popup-title", { textContent: title }), close]);
  openPopup(null, element("div", "", {}, [head, content]), {
    label: title,
    className: "is-sheet",
    onClose: () => videos.forEach(unload),
  });
  close.focus({ preventScroll: true });
}

function unload(video) {
  video.removeAttribute("src");
  video.load();
}
