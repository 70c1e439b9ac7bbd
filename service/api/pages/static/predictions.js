// The predictions: bars of the top labels for one image, a list for several images.

import { byId, el, milliseconds, errorNotice, percent, show } from "./dom.js";

/** `images` are {name, url, predictions | error}; `onChoose(index)` is called when one of several images is selected. */
export function showPredictions(images, chosen, onChoose) {
  const container = byId("answer");
  if (images.length === 1) return show(container, one(images[0]));
  const good = images.filter((image) => image.predictions).length;
  const summary = `${good} of ${images.length} images have an answer.`;
  const entries = images.map((image, index) => entry(image, index === chosen, () => onChoose(index)));
  show(container, el("p", { className: "summary" }, summary), el("ul", { className: "many" }, entries));
}

export function showTiming(timing) {
  const parts = [`answered in ${milliseconds(timing.tookMs)}`];
  for (const [stage, words] of [["decode", "decoding"], ["queue", "waiting"], ["compute", "computing"]]) {
    if (timing.batch && stage in timing) parts.push(`${words} ${milliseconds(timing[stage])}`);
  }
  if (timing.batch) parts.push(timing.batch === 1 ? "alone in its batch" : `in a batch of ${timing.batch}`);
  byId("timing").textContent = parts.join(" · ");
}

export function showPlaceholder(text) {
  show(byId("answer"), el("p", { className: "empty" }, text));
  byId("timing").textContent = "";
}

export function showError(error) {
  show(byId("answer"), errorNotice(error));
  byId("timing").textContent = "";
}

function one(image) {
  if (image.error) return el("div", { className: "one" }, head(image), errorNotice(image.error));
  const { label, detail } = verdict(image);
  return el(
    "div",
    { className: "one" },
    el("p", { className: "verdict" }, el("strong", {}, label), " ", el("span", {}, detail)),
    image.drawn ? null : head(image),
    bars(shown(image.predictions)),
  );
}

/** Returns the best class with its probability, or for independent labels, all labels above 50 %. */
function verdict({ predictions, multiLabel }) {
  const [best] = predictions;
  if (!multiLabel) return { label: best.label, detail: percent(best.probability) };
  const likely = predictions.filter(({ probability }) => probability > 0.5);
  if (likely.length === 1) return { label: likely[0].label, detail: percent(likely[0].probability) };
  return { label: likely.map(({ label }) => label).join(", ") || "No label above 50 %", detail: "" };
}

/** Returns the first five labels, and all that are above 50 %. */
function shown(predictions) {
  return predictions.filter(({ probability }, rank) => rank < 5 || probability > 0.5);
}

function entry(image, isChosen, onChoose) {
  if (image.error) return el("li", { className: "broken" }, head(image), errorNotice(image.error));
  const { label, detail } = verdict(image);
  const name = [`${image.name}: ${label}`, detail].filter(Boolean).join(", ");
  const button = el(
    "button",
    { type: "button", className: "choose", "aria-pressed": String(isChosen), "aria-label": name, onclick: onChoose },
    head(image),
    el("span", { className: "short" }, el("strong", {}, label), ` ${detail}`),
  );
  return el("li", { className: isChosen ? "chosen" : "" }, button, isChosen ? bars(shown(image.predictions)) : null);
}

function head(image) {
  return el("span", { className: "head" }, thumbnail(image), el("span", { className: "name" }, image.name));
}

function thumbnail({ url }) {
  const image = el("img", { src: url, alt: "", width: 48, height: 48 });
  image.addEventListener("error", () => image.replaceWith(el("span", { className: "no-image" }, "?")), { once: true });
  return image;
}

function bars(predictions) {
  return el("ol", { className: "bars" }, predictions.map(bar));
}

function bar({ label, probability }) {
  const fill = el("span", { className: "fill" });
  fill.style.setProperty("inline-size", `${Math.max(probability * 100, 0.4)}%`);
  return el(
    "li",
    {},
    el("span", { className: "label" }, label),
    el("span", { className: "track", "aria-hidden": "true" }, fill),
    el("span", { className: "share" }, percent(probability)),
  );
}
