/** One video element for all cards: it plays in the card under the pointer, and gives its decoder back. */

import { element } from "./dom.js";

const REST_MS = 120; // how long the pointer rests before a clip loads

export class Player {
  constructor() {
    this.video = element("video", "svi-card-video", { muted: true, loop: true, playsInline: true, preload: "auto", tabIndex: -1 });
    this.video.setAttribute("aria-hidden", "true");
    this.video.disablePictureInPicture = true;
    this.video.addEventListener("playing", () => this.video.classList.add("is-playing"));
  }

  /** Play the video at `url` inside `place`, after the pointer rested on it. */
  play(place, url, wait = REST_MS) {
    if (this.place === place && this.url === url) return;
    this.stop();
    [this.place, this.url] = [place, url];
    this.timer = setTimeout(() => {
      place.append(this.video);
      this.video.src = url;
      this.video.play().catch(() => {}); // a clip that cannot be played keeps its still
    }, wait);
  }

  get isPlaying() {
    return this.place !== undefined;
  }

  /** Stop playing, in `place` or anywhere. */
  stop(place = this.place) {
    if (place !== this.place) return;
    clearTimeout(this.timer);
    this.place = this.url = undefined;
    this.video.classList.remove("is-playing");
    this.video.remove();
    if (!this.video.hasAttribute("src")) return;
    this.video.removeAttribute("src");
    this.video.load();
  }
}
