// Shows a clip frame by frame. Which frame is on the screen is told by the time the browser says of it and the table of times of the video's
// frames, never by a frame rate. A video whose frames have other times, or another size, is given up for the next source.

const TOLERANCE_S = 0.002;
const POLL_MS = 300;
// Where in a frame's time a seek goes to. A browser may take the frame before for one that lasts as long as its container says, which of frames
// that are stored in another order than they are shown is another time.
const SHARES = [0.7, 0.95, 0.3];
const PATIENCE_MS = 2000;

export class Player {
  // about: what about.json says. onFrame is told each frame that is shown, onSay what a person should know.
  constructor(video, about, onFrame, onSay) {
    Object.assign(this, { video, about, onFrame, onSay });
    this.first = about.frame_start;
    this.last = about.frame_end - 1;
    this.frame = this.first;
    this.wanted = null;
    this.times = null;
    this.exact = "requestVideoFrameCallback" in video;
    video.addEventListener("seeked", () => this.#afterSeek());
    video.addEventListener("error", () => this.times && this.#giveUp("the browser cannot play it"));
    video.addEventListener("loadedmetadata", () => this.#loaded());
    video.addEventListener("timeupdate", () => this.exact || this.#shown(video.currentTime));
    if (this.exact) this.#watch();
  }

  async load() {
    if (this.about.trouble) return this.onSay(`No pictures: ${this.about.trouble}`);
    this.waiting = [...this.about.sources];
    await this.#next();
  }

  get playing() {
    return !this.video.paused && this.times !== null;
  }

  toggle() {
    if (!this.times) return;
    if (this.playing) return this.video.pause();
    if (this.frame >= this.last) this.seek(this.first);
    this.video.play().catch((error) => this.onSay(`The browser does not play: ${error.message}`));
  }

  step(n) {
    this.video.pause();
    this.seek((this.wanted ?? this.frame) + n);
  }

  seek(frame) {
    frame = Math.max(this.first, Math.min(this.last, Math.round(frame)));
    if (!this.times) return this.#set(frame);
    this.wanted = frame;
    if (this.video.readyState && !this.video.seeking) this.#go();
  }

  async #next() {
    const source = this.waiting.shift();
    if (!source) return this.onSay("No pictures: no video of this clip can be played.");
    const times = source.times_s ?? (await this.#copied(source.progress));
    if (!times) return;
    this.source = source;
    this.times = times;
    this.onSay("");
    this.wanted = this.frame;
    this.video.src = source.address;
  }

  // Wait until the copy is made; its times, or null where it cannot be made.
  async #copied(address) {
    for (;;) {
      const answer = await fetch(address);
      const said = await answer.json();
      if (said.error) return this.onSay(`No pictures: ${said.error}`), null;
      if (said.times_s.length) return said.times_s;
      this.onSay(`Making a copy that browsers play: frame ${said.done} of ${said.total}`);
      await new Promise((ready) => setTimeout(ready, POLL_MS));
    }
  }

  #giveUp(why) {
    this.times = null;
    this.video.pause();
    this.video.removeAttribute("src");
    this.video.load(); // else its last picture stays beside the numbers of other frames
    this.onSay(`Showing a copy: ${why}.`);
    this.#next();
  }

  #loaded() {
    const [width, height] = this.about.size_px;
    const differs = Math.abs(this.video.videoWidth - width) > 1 || Math.abs(this.video.videoHeight - height) > 1;
    if (this.source?.times_s && differs) this.#giveUp("the browser shows the picture in another size");
    else if (this.times) this.#go();
  }

  #gap(at) {
    const { times } = this;
    return at + 1 < times.length ? times[at + 1] - times[at] : at ? times[at] - times[at - 1] : 0.04;
  }

  #go(tries = 0) {
    this.asked = this.wanted ?? this.frame;
    this.tries = tries;
    this.fresh = false;
    const at = this.asked - this.first;
    this.video.currentTime = this.times[at] + this.#gap(at) * SHARES[tries];
  }

  #afterSeek() {
    if (!this.times) return;
    if (!this.exact) this.#shown(this.video.currentTime);
    this.#settle();
  }

  // After a seek: go on to the frame that was asked for meanwhile, and try again where another one is shown.
  #settle() {
    if (this.video.seeking || !this.fresh || this.playing || !this.times) return;
    if (this.wanted !== null && this.wanted !== this.asked) return this.#go();
    if (this.frame === this.asked) return;
    if (this.tries + 1 < SHARES.length) return this.#go(this.tries + 1);
    const { asked } = this;
    const missing = () => this.times && !this.playing && asked === this.asked && this.frame !== asked && !this.video.seeking;
    setTimeout(() => missing() && this.waiting.length && this.#giveUp(`the browser does not show frame ${asked}`), PATIENCE_MS);
  }

  #watch() {
    this.video.requestVideoFrameCallback((_now, { mediaTime }) => {
      if (this.times) this.#shown(mediaTime);
      this.#watch();
    });
  }

  // The picture of this time is on the screen.
  #shown(time) {
    const { times } = this;
    let low = 0;
    let high = times.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (times[middle] <= time + TOLERANCE_S) low = middle;
      else high = middle - 1;
    }
    const off = Math.abs(times[low] - time);
    const inside = time >= times[0] - TOLERANCE_S && time <= times.at(-1) + TOLERANCE_S;
    if (!inside) return this.playing && this.#stop();
    if (this.exact && off > Math.min(TOLERANCE_S, this.#gap(low) / 2)) return this.#giveUp("the browser shows frames at other times");
    this.#set(this.first + low);
    this.fresh = true;
    if (this.playing && this.frame === this.last) this.#stop();
    this.#settle();
  }

  #stop() {
    this.video.pause();
    this.seek(this.last);
  }

  #set(frame) {
    this.frame = frame;
    if (frame === this.wanted || this.playing) this.wanted = null;
    this.onFrame(frame);
  }
}

// Buttons, slider, keys and the address of a page with a player. onKey is told other keys, and says whether they mean something.
export function bindPlayer(player, place, onKey) {
  const { video } = player;
  const asked = () => {
    const found = /[#&]frame=(\d+)/.exec(location.hash);
    return found && Math.max(player.first, Math.min(player.last, Number(found[1])));
  };
  const acts = { back: () => player.step(-1), play: () => player.toggle(), on: () => player.step(1) };
  const keys = { " ": acts.play, ",": acts.back, ".": acts.on, Home: () => player.seek(player.first), End: () => player.seek(player.last) };
  for (const [name, act] of Object.entries(acts)) place.querySelector(`[data-do=${name}]`).addEventListener("click", act);
  const scrub = place.querySelector("#scrub");
  scrub.addEventListener("input", () => (video.pause(), player.seek(Number(scrub.value))));
  const play = place.querySelector("[data-do=play]");
  for (const what of ["play", "pause"]) {
    video.addEventListener(what, () => {
      play.textContent = video.paused ? "Play" : "Pause";
      play.setAttribute("aria-pressed", String(!video.paused));
      if (video.paused) history.replaceState(null, "", `#frame=${player.frame}`);
    });
  }
  addEventListener("keydown", (event) => {
    const { target, key } = event;
    if (event.ctrlKey || event.metaKey || event.altKey || target.closest("textarea, select, input:not([type=range], [type=checkbox], [type=radio])")) return;
    const arrow = { ArrowLeft: -1, ArrowRight: 1 }[key];
    if (key === " " && target.closest("button, summary, a, input")) return;
    if (target.type === "radio" && (arrow || key === " ")) return;
    if (arrow) player.step(arrow * (event.shiftKey ? 10 : 1));
    else if (keys[key]) keys[key]();
    else if (!onKey(key)) return;
    event.preventDefault();
  });
  addEventListener("hashchange", () => player.seek(asked() ?? player.frame));
  player.frame = asked() ?? player.first;
  player.onFrame(player.frame);
}
