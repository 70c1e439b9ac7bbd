// The panel about the selected model: its figures, its card and the card's images, as the export wrote them.

import { byId, el, milliseconds, errorNotice, show } from "./dom.js";
import { renderMarkdown } from "./markdown.js";

/** Shows one version of a model. Images are fetched like the card, because an <img> cannot send a key. */
export async function showModelInfo(api, model, version) {
  const container = byId("about");
  const parts = [facts(model, version)];
  const folder = `api/v1/models/${encodeURIComponent(model.name)}/versions/${encodeURIComponent(version.version)}`;
  const has = (name) => version.documents.includes(name);
  if (has("confusion.png")) parts.push(confusion(api, `${folder}/confusion.png`));
  if (has("card.md")) parts.push(card(api, folder, has));
  show(container, parts);
}

function facts(model, version) {
  const { height, width, channels } = version.input;
  const one = version.batch_ms[1];
  const rows = [
    accuracy(version),
    ["Input", `${width} × ${height}, ${channels === 1 ? "gray" : "color"}`],
    ["Classes", version.classes],
    ["Parameters", version.parameters?.toLocaleString("en") ?? "unknown"],
    ["Trained on", version.provenance.dataset ?? "unknown"],
    ["Runs in", `${version.precision} on ${version.provider.replace("ExecutionProvider", "")}`],
    ["One image takes", one === undefined ? "not measured" : milliseconds(one)],
  ];
  return el("dl", { className: "facts" }, rows.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, String(value)))));
}

/** Images that the user gave to the export may be images that the network was trained on. */
function accuracy({ test_accuracy, metrics }) {
  const percent = (share) => `${(share * 100).toFixed(2)} %`;
  if (test_accuracy !== null) return ["Accuracy on its test set", percent(test_accuracy)];
  if (metrics.check_accuracy === undefined) return ["Accuracy", "not measured"];
  return [`Accuracy on ${metrics.check_images} given images, possibly training images`, percent(metrics.check_accuracy)];
}

function confusion(api, path) {
  const figure = el("figure", { className: "confusion" });
  image(api, path, "Confusion matrix: rows are the correct classes, columns are the predicted classes").then(
    (image) => show(figure, image, el("figcaption", {}, "Which classes are confused, on the images of the accuracy")),
    (error) => show(figure, errorNotice(error)),
  );
  return figure;
}

function card(api, folder, has) {
  const body = el("div", { className: "card-text" });
  const details = el("details", {}, el("summary", {}, "The model's card"), body);
  details.addEventListener("toggle", () => fill(api, folder, has, body), { once: true });
  return details;
}

async function fill(api, folder, has, body) {
  try {
    const text = await api.text(`${folder}/card.md`);
    show(body, renderMarkdown(text, (file, alt) => cardImage(api, folder, has, file, alt)));
  } catch (error) {
    show(body, errorNotice(error));
  }
}

function cardImage(api, folder, has, file, alt) {
  const place = el("span", {}, alt);
  if (has(file)) image(api, `${folder}/${file}`, alt).then((image) => show(place, image), () => {});
  return place;
}

async function image(api, path, alt) {
  const image = el("img", { alt });
  image.addEventListener("load", () => URL.revokeObjectURL(image.src), { once: true });
  image.src = URL.createObjectURL(await api.blob(path));
  return image;
}
