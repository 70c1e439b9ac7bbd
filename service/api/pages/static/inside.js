// Inside the network: the input as it sees it, its filters and feature maps, and, on request, which pixels mattered.

import { byId, el, notice, pixelated, show } from "./dom.js";

const TRIES = 3;

/** What is known of the layers' kinds is their order: the textbooks' edges, then shapes, then objects. */
export class Inside {
  /** `explain(method, blob, wanted, signal)` gives the service's answer; `onHeat(wanted)` hears that one was asked for. */
  constructor(explain, onHeat) {
    this.explain = explain;
    this.onHeat = onHeat;
    this.container = byId("inside");
    this.abort = new AbortController();
  }

  clear(text) {
    this.abort.abort();
    show(this.container, el("p", { className: "empty" }, text));
  }

  /** Shows all that is cheap about an image; `labels` are the classes that heat can be asked for. */
  async look(blob, { methods, labels, best }) {
    this.abort.abort();
    this.abort = new AbortController();
    const { signal } = this.abort;
    const method = methods.includes("features") ? "features" : "input";
    try {
      const found = await patiently(() => this.explain(method, blob, null, signal), signal);
      if (signal.aborted) return;
      const heat = methods.includes("occlusion") ? this.heatPanel(blob, labels, best) : null;
      show(this.container, el("div", { className: "seen" }, input(found.input), heat), layers(found, methods));
    } catch (error) {
      if (!signal.aborted) show(this.container, notice(error));
    }
  }

  heatPanel(blob, labels, best) {
    const select = el("select", {}, labels.map((label, index) => el("option", { value: String(index) }, label)));
    select.value = String(best);
    const result = el("div", { className: "heat", "aria-live": "polite" });
    const button = el("button", { type: "button", className: "primary" }, "Show which pixels mattered");
    button.addEventListener("click", () => this.askForHeat(blob, select.value, button, result));
    return el(
      "div",
      { className: "why" },
      el("h3", {}, "Why that answer?"),
      el("label", {}, "For the class ", select),
      button,
      result,
    );
  }

  async askForHeat(blob, wanted, button, result) {
    const { signal } = this.abort;
    button.disabled = true;
    this.onHeat(wanted);
    try {
      const found = await this.explain("occlusion", blob, wanted, signal);
      show(result, heat(found));
    } catch (error) {
      if (!signal.aborted) show(result, notice(error));
    } finally {
      button.disabled = false;
    }
  }
}

/** Other people's explanations come first at times: waits as long as the service says, a few times. */
async function patiently(ask, signal) {
  for (let left = TRIES; ; left--) {
    try {
      return await ask();
    } catch (error) {
      if (error.status !== 429 || left <= 1 || signal.aborted) throw error;
      await new Promise((resolve) => setTimeout(resolve, (error.retryAfterS || 1) * 1000));
    }
  }
}

function input({ png, width, height, channels }) {
  const kind = channels === 1 ? "grey" : "colour";
  return el(
    "figure",
    { className: "input" },
    pixelated(png, "The image as the network sees it"),
    el("figcaption", {}, `What the network sees: ${width} × ${height} pixels, ${kind}`),
  );
}

function heat({ heat: png, explained, passes }) {
  return [
    pixelated(png, `Heat map: pixels that speak for ${explained.label} in orange, against it in blue`),
    el(
      "p",
      { className: "hint" },
      el("span", { className: "for" }, "Orange"),
      ` speaks for ${explained.label}, `,
      el("span", { className: "against" }, "blue"),
      ` against it. Found by covering the image patch by patch: ${passes} passes in the background.`,
    ),
  ];
}

function layers({ filters, layers: found }, methods) {
  if (!methods.includes("features")) {
    return el("p", { className: "hint" }, "This version was published without feature maps.");
  }
  const rows = found.map((layer) => strip(layer, "Feature maps"));
  if (filters) rows.unshift(strip(filters, "Filters"));
  return [
    el("h3", {}, "Layer by layer"),
    el("p", { className: "hint" }, "Early layers answer to edges, later ones to shapes, the last ones to parts of the object."),
    el("div", { className: "strips" }, rows),
  ];
}

function strip({ layer, count, shown, width, height, png }, what) {
  const number = shown < count ? `${shown} of ${count}` : String(count);
  return el(
    "figure",
    { className: "strip" },
    el("figcaption", {}, el("strong", {}, layer), ` ${what.toLowerCase()}: ${number}, ${width} × ${height}`),
    pixelated(png, `${what} of layer ${layer}`),
  );
}
