// The explanation panel: the network's input, its filters and feature maps, and an occlusion heatmap on request.

import { byId, el, errorNotice, pixelated, show } from "./dom.js";

const MAX_TRIES = 3;

export class ExplanationPanel {
  /** `explain(method, blob, classIndex, signal)` returns the service's reply; `onHeatmap(classIndex)` is called on request. */
  constructor(explain, onHeatmap) {
    this.explain = explain;
    this.onHeatmap = onHeatmap;
    this.container = byId("inside");
    this.abort = new AbortController();
  }

  clear(text) {
    this.abort.abort();
    show(this.container, el("p", { className: "empty" }, text));
  }

  /** Shows the explanations that are cheap to compute. `labels` are the classes for which a heatmap can be requested. */
  async showImage(blob, { methods, labels, best }) {
    this.abort.abort();
    this.abort = new AbortController();
    const { signal } = this.abort;
    const method = methods.includes("features") ? "features" : "input";
    try {
      const reply = await retryWhenBusy(() => this.explain(method, blob, null, signal), signal);
      if (signal.aborted) return;
      const heatmapPanel = methods.includes("occlusion") ? this.createHeatmapPanel(blob, labels, best) : null;
      show(this.container, el("div", { className: "seen" }, input(reply.input), heatmapPanel), layers(reply, methods));
    } catch (error) {
      if (!signal.aborted) show(this.container, errorNotice(error));
    }
  }

  createHeatmapPanel(blob, labels, best) {
    const select = el("select", {}, labels.map((label, index) => el("option", { value: String(index) }, label)));
    select.value = String(best);
    const result = el("div", { className: "heat", "aria-live": "polite" });
    const button = el("button", { type: "button", className: "primary" }, "Show which pixels mattered");
    button.addEventListener("click", () => this.requestHeatmap(blob, select.value, button, result));
    return el(
      "div",
      { className: "why" },
      el("h3", {}, "Why that answer?"),
      el("label", {}, "For the class ", select),
      button,
      result,
    );
  }

  async requestHeatmap(blob, classIndex, button, result) {
    const { signal } = this.abort;
    button.disabled = true;
    this.onHeatmap(classIndex);
    try {
      const reply = await this.explain("occlusion", blob, classIndex, signal);
      show(result, heatmap(reply));
    } catch (error) {
      if (!signal.aborted) show(result, errorNotice(error));
    } finally {
      button.disabled = false;
    }
  }
}

/** While the service is busy with other explanations, sends the request again after its Retry-After. */
async function retryWhenBusy(send, signal) {
  for (let left = MAX_TRIES; ; left--) {
    try {
      return await send();
    } catch (error) {
      if (error.status !== 429 || left <= 1 || signal.aborted) throw error;
      await new Promise((resolve) => setTimeout(resolve, (error.retryAfterS || 1) * 1000));
    }
  }
}

function input({ png, width, height, channels }) {
  const kind = channels === 1 ? "gray" : "color";
  return el(
    "figure",
    { className: "input" },
    pixelated(png, "The image as the network sees it"),
    el("figcaption", {}, `What the network sees: ${width} × ${height} pixels, ${kind}`),
  );
}

function heatmap({ heat: png, explained, passes }) {
  return [
    pixelated(png, `Heat map: pixels that support ${explained.label} in orange, pixels against it in blue`),
    el(
      "p",
      { className: "hint" },
      el("span", { className: "for" }, "Orange"),
      ` supports ${explained.label}, `,
      el("span", { className: "against" }, "blue"),
      ` counts against it. Computed by covering the image patch by patch, in ${passes} background passes.`,
    ),
  ];
}

function layers({ filters, layers: layerReplies }, methods) {
  if (!methods.includes("features")) {
    return el("p", { className: "hint" }, "This version was published without feature maps.");
  }
  const rows = layerReplies.map((layer) => strip(layer, "Feature maps"));
  if (filters) rows.unshift(strip(filters, "Filters"));
  return [
    el("h3", {}, "Layer by layer"),
    el("p", { className: "hint" }, "Early layers respond to edges, later layers to shapes, the last layers to parts of the object."),
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
