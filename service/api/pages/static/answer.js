// What the network says: bars of the top labels for one picture, a list for many.

import { byId, el, milliseconds, notice, percent, show } from "./dom.js";

/** `pictures` are {name, url, predictions | error}; `onChoose(index)` is called when one of many is looked at. */
export function showAnswers(pictures, chosen, onChoose) {
  const container = byId("answer");
  if (pictures.length === 1) return show(container, one(pictures[0]));
  const good = pictures.filter((picture) => picture.predictions).length;
  const summary = `${good} of ${pictures.length} pictures have an answer.`;
  const entries = pictures.map((picture, index) => entry(picture, index === chosen, () => onChoose(index)));
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

export function showNothing(text) {
  show(byId("answer"), el("p", { className: "empty" }, text));
  byId("timing").textContent = "";
}

export function showTrouble(error) {
  show(byId("answer"), notice(error));
  byId("timing").textContent = "";
}

function one(picture) {
  if (picture.error) return el("div", { className: "one" }, head(picture), notice(picture.error));
  const [best] = picture.predictions;
  return el(
    "div",
    { className: "one" },
    el("p", { className: "verdict" }, el("strong", {}, best.label), " ", el("span", {}, percent(best.probability))),
    picture.drawn ? null : head(picture),
    bars(picture.predictions),
  );
}

function entry(picture, isChosen, onChoose) {
  if (picture.error) return el("li", { className: "broken" }, head(picture), notice(picture.error));
  const [best] = picture.predictions;
  const label = `${picture.name}: ${best.label}, ${percent(best.probability)}`;
  const button = el(
    "button",
    { type: "button", className: "choose", "aria-pressed": String(isChosen), "aria-label": label, onclick: onChoose },
    head(picture),
    el("span", { className: "short" }, el("strong", {}, best.label), ` ${percent(best.probability)}`),
  );
  return el("li", { className: isChosen ? "chosen" : "" }, button, isChosen ? bars(picture.predictions) : null);
}

function head(picture) {
  return el("span", { className: "head" }, thumbnail(picture), el("span", { className: "name" }, picture.name));
}

function thumbnail({ url }) {
  const image = el("img", { src: url, alt: "", width: 48, height: 48 });
  image.addEventListener("error", () => image.replaceWith(el("span", { className: "no-picture" }, "?")), { once: true });
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
