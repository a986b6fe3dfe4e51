/** Build elements. Texts enter through textContent and attributes, never as HTML. */

/** Return a new element with `properties`, `attributes` (keys with a dash) and `children`. */
export function element(tag, className = "", properties = {}, children = []) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-") || name === "role") made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...children);
  return made;
}

/** Return a button that calls `onClick`. `label` is its name where `text` is only a sign. */
export function button(text, onClick, { className = "", label = "", hint = "" } = {}) {
  const made = element("button", className, { type: "button", textContent: text, title: hint || label });
  if (label) made.setAttribute("aria-label", label);
  made.addEventListener("click", (event) => {
    event.stopPropagation();
    onClick(event);
  });
  return made;
}

/** Set the text of an element, and hide it without one. */
export function say(target, text) {
  if (target.textContent !== text) target.textContent = text;
  target.hidden = !text;
}

/** Return a time for people: 9 s, 4 min, 1 h 20 min. */
export function duration(seconds) {
  if (!(seconds >= 0)) return "";
  if (seconds < 10) return `${Number(seconds.toFixed(1))} s`;
  if (seconds < 60) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** Return a length of video: 0:24. */
export function timecode(seconds) {
  const whole = Math.round(seconds);
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  const end = String(whole % 60).padStart(2, "0");
  return hours ? `${hours}:${String(minutes).padStart(2, "0")}:${end}` : `${minutes}:${end}`;
}
