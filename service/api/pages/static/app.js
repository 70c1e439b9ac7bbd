// The page's controller: sends what the user draws or drops to the service, and shows the replies.

import { showModelInfo } from "./about.js";
import { showPredictions, showPlaceholder, showTiming, showError } from "./predictions.js";
import { Api } from "./api.js";
import { byId, el, errorNotice, show } from "./dom.js";
import { toMnistPng } from "./drawing.js";
import { ExplanationPanel } from "./explanations.js";
import { promptForKey } from "./key.js";
import { Pad } from "./pad.js";
import { onImageFiles } from "./images.js";
import { showSnippets } from "./snippets.js";
import { chooseTab, listenForTabs } from "./tabs.js";

const DRAWING = "drawing.png";
const TOP_K = 5;
const MULTI_LABEL_TOP_K = 50; // more labels than that are hardly above 50 %
const SETTLE_MS = 150;

class Playground {
  constructor() {
    this.api = new Api(promptForKey);
    this.explanations = new ExplanationPanel((...args) => this.explain(...args), (classIndex) => this.showHeatmapCommands(classIndex));
    this.pad = new Pad(byId("pad"), () => this.onDrawn());
    this.requestNumber = 0; // replies to earlier requests are not shown
    this.strokes = 0;
    this.busy = 0;
    this.images = [];
    this.listen();
  }

  listen() {
    byId("clear").addEventListener("click", () => this.pad.clear());
    byId("undo").addEventListener("click", () => this.pad.undo());
    byId("example").addEventListener("click", () => this.pad.drawExample());
    byId("model").addEventListener("change", () => this.chooseModel(byId("model").value));
    byId("version").addEventListener("change", () => this.chooseVersion(byId("version").value));
    byId("forget-key").addEventListener("click", () => this.forgetKey());
    onImageFiles((files) => this.sendFiles(files));
    listenForTabs();
  }

  async start() {
    await this.showErrorsOf(async () => {
      const { body } = await this.api.json("api/v1/models");
      if (!body.models.length) throw new Error("No model is loaded yet. Add a model to the models folder, then reload this page.");
      const digits = body.models.find((model) => model.input.channels === 1) ?? body.models[0];
      fill(byId("model"), body.models.map(({ name }) => [name, name]), digits.name);
      await this.chooseModel(digits.name);
    });
  }

  async chooseModel(name) {
    await this.showErrorsOf(async () => {
      const { body } = await this.api.json(`api/v1/models/${encodeURIComponent(name)}`);
      this.model = body;
      const labels = Object.entries(body.version_labels).map(([label, version]) => [label, `${label} (${version})`]);
      const numbers = body.versions.map(({ version }) => [version, version]);
      fill(byId("version"), [...numbers, ...labels], body.default_version);
      await this.chooseVersion(body.default_version);
      chooseTab(this.version.input.channels === 1 ? "draw" : "files");
    });
  }

  async chooseVersion(name) {
    const number = this.model.version_labels[name] ?? name;
    this.version = this.model.versions.find(({ version }) => version === number);
    this.versionName = name;
    this.reset();
    await showModelInfo(this.api, this.model, this.version);
    if (this.version.input.channels === 1 && !this.pad.empty) this.onDrawn();
  }

  /** Whether the labels are independent, each with its own probability. */
  get multiLabel() {
    return this.version.activation === "sigmoid";
  }

  get topK() {
    return this.multiLabel ? MULTI_LABEL_TOP_K : TOP_K;
  }

  reset() {
    this.requestNumber++;
    this.setImages([]);
    showPlaceholder("Draw something, or drop an image.");
    this.explanations.clear("The outputs of the layers appear here after the first prediction.");
  }

  setImages(images) {
    for (const { url } of this.images) URL.revokeObjectURL(url);
    this.images = images;
  }

  /** Sends the drawing shortly after the last stroke, because a digit may have several strokes. */
  onDrawn() {
    const stroke = ++this.strokes;
    if (this.pad.empty) return this.reset();
    this.showErrorsOf(async () => {
      await new Promise((resolve) => setTimeout(resolve, SETTLE_MS));
      if (stroke === this.strokes) await this.sendDrawing();
    });
  }

  async sendDrawing() {
    if (!this.version) return;
    const blob = await toMnistPng(this.pad.ink(), this.version);
    if (!blob) return;
    const requestNumber = ++this.requestNumber;
    const path = `api/v1/models/${encodeURIComponent(this.model.name)}/classify`;
    const { body, timing } = await this.post(path, { top_k: this.topK }, blob);
    if (requestNumber !== this.requestNumber) return;
    const image = { name: DRAWING, url: URL.createObjectURL(blob), blob, drawn: true, predictions: body.predictions, multiLabel: this.multiLabel };
    this.setImages([image]);
    showTiming(timing);
    this.showCommands({ path, query: this.query({ top_k: this.topK }), names: [DRAWING], many: false });
    this.selectImage(0);
  }

  async sendFiles(files) {
    chooseTab("files");
    await this.showErrorsOf(async () => {
      if (!this.version) throw new Error("No model is loaded yet.");
      const requestNumber = ++this.requestNumber;
      showPlaceholder(files.length === 1 ? "Classifying one image…" : `Classifying ${files.length} images…`);
      const form = new FormData();
      for (const file of files) form.append("files", file, file.name);
      const path = `api/v1/models/${encodeURIComponent(this.model.name)}/classify/batch`;
      const { body, timing } = await this.post(path, { top_k: this.topK }, form);
      if (requestNumber !== this.requestNumber) return;
      this.setImages(files.map((file, index) => ({
        name: file.name, url: URL.createObjectURL(file), blob: file, multiLabel: this.multiLabel, ...body.results[index],
      })));
      showTiming(timing);
      this.showCommands({ path, query: this.query({ top_k: this.topK }), names: files.map(({ name }) => name), many: true });
      this.selectImage(this.images.findIndex(({ predictions }) => predictions));
    });
  }

  /** Selects one of the images and shows its explanation. */
  selectImage(index) {
    showPredictions(this.images, index, (other) => this.selectImage(other));
    const image = this.images[index];
    if (!image?.predictions) return this.explanations.clear("No image could be read, so there are no feature maps.");
    this.selectedImage = image;
    const options = { methods: this.version.explanations, labels: this.model.labels, best: image.predictions[0].index };
    this.whileBusy(() => this.explanations.showImage(image.blob, options));
  }

  async explain(method, blob, classIndex, signal) {
    const query = this.query({ method, ...(classIndex === null ? {} : { class: this.model.labels[classIndex] }) });
    const path = `${this.explainPath()}?${new URLSearchParams(query)}`;
    return (await this.api.json(path, { method: "POST", body: blob, signal })).body;
  }

  explainPath() {
    return `api/v1/models/${encodeURIComponent(this.model.name)}/explain`;
  }

  showHeatmapCommands(classIndex) {
    const query = this.query({ method: "occlusion", class: this.model.labels[classIndex] });
    this.showCommands({ path: this.explainPath(), query, names: [this.selectedImage.name], many: false });
  }

  showCommands(action) {
    const drawing = this.images.find(({ drawn }) => drawn);
    showSnippets(action, Boolean(this.api.key), drawing ? { name: DRAWING, url: drawing.url } : null);
  }

  /** Adds the version, unless it is the default one. */
  query(parameters) {
    return this.versionName === this.model.default_version ? parameters : { ...parameters, version: this.versionName };
  }

  post(path, parameters, body) {
    return this.api.json(`${path}?${new URLSearchParams(this.query(parameters))}`, { method: "POST", body });
  }

  /** Runs `work`, and shows its error in the page. */
  async showErrorsOf(work) {
    const errorBox = byId("trouble");
    errorBox.hidden = true;
    try {
      await this.whileBusy(work);
    } catch (error) {
      if (this.version) showError(error);
      else {
        errorBox.hidden = false;
        show(errorBox, [...errorNotice(error).childNodes], " ", el("button", { type: "button", onclick: () => this.start() }, "Try again"));
      }
    } finally {
      byId("forget-key").hidden = !this.api.key;
    }
  }

  /** Tells assistive technology that the page is about to change. */
  async whileBusy(work) {
    const main = document.querySelector("main");
    this.busy++;
    main.ariaBusy = "true";
    try {
      await work();
    } finally {
      main.ariaBusy = String(--this.busy > 0);
    }
  }

  forgetKey() {
    this.api.forgetKey();
    location.reload();
  }
}

function fill(select, options, selected) {
  show(select, options.map(([value, text]) => el("option", { value }, text)));
  select.value = selected;
  select.disabled = false;
}

new Playground().start();
