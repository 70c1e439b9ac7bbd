// The page: what a person does goes to the service, what comes back is shown. Everything else has a file of its own.

import { showAbout } from "./about.js";
import { showAnswers, showNothing, showTiming, showTrouble } from "./answer.js";
import { Api } from "./api.js";
import { byId, el, notice, show } from "./dom.js";
import { pngOf } from "./drawing.js";
import { Inside } from "./inside.js";
import { askForKey } from "./key.js";
import { Pad } from "./pad.js";
import { listenForImages } from "./images.js";
import { showSnippets } from "./snippets.js";
import { chooseTab, listenForTabs } from "./tabs.js";

const DRAWING = "drawing.png";
const TOP_K = 5;
const SETTLE_MS = 150;

class Playground {
  constructor() {
    this.api = new Api(askForKey);
    this.inside = new Inside((...given) => this.explain(...given), (wanted) => this.tellHeat(wanted));
    this.pad = new Pad(byId("pad"), () => this.drawn());
    this.turn = 0; // answers to earlier turns are not shown
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
    listenForImages((files) => this.sendFiles(files));
    listenForTabs();
  }

  async start() {
    await this.guarded(async () => {
      const { body } = await this.api.json("api/v1/models");
      if (!body.models.length) throw new Error("No model is loaded yet. Put one into the models folder, then reload this page.");
      const digits = body.models.find((model) => model.input.channels === 1) ?? body.models[0];
      fill(byId("model"), body.models.map(({ name }) => [name, name]), digits.name);
      await this.chooseModel(digits.name);
    });
  }

  async chooseModel(name) {
    await this.guarded(async () => {
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
    this.forget();
    await showAbout(this.api, this.model, this.version);
    if (this.version.input.channels === 1 && !this.pad.empty) this.drawn();
  }

  forget() {
    this.turn++;
    this.setImages([]);
    showNothing("Draw something, or drop an image.");
    this.inside.clear("What the layers see appears here with the first answer.");
  }

  setImages(images) {
    for (const { url } of this.images) URL.revokeObjectURL(url);
    this.images = images;
  }

  /** Asks a moment after the last stroke; the strokes of one digit follow each other closely. */
  drawn() {
    const stroke = ++this.strokes;
    if (this.pad.empty) return this.forget();
    this.guarded(async () => {
      await new Promise((resolve) => setTimeout(resolve, SETTLE_MS));
      if (stroke === this.strokes) await this.sendDrawing();
    });
  }

  async sendDrawing() {
    if (!this.version) return;
    const blob = await pngOf(this.pad.ink(), this.version);
    if (!blob) return;
    const turn = ++this.turn;
    const path = `api/v1/models/${encodeURIComponent(this.model.name)}/classify`;
    const { body, timing } = await this.post(path, { top_k: TOP_K }, blob);
    if (turn !== this.turn) return;
    const image = { name: DRAWING, url: URL.createObjectURL(blob), blob, drawn: true, predictions: body.predictions };
    this.setImages([image]);
    showTiming(timing);
    this.tell({ path, query: this.query({ top_k: TOP_K }), names: [DRAWING], many: false });
    this.choose(0);
  }

  async sendFiles(files) {
    chooseTab("files");
    await this.guarded(async () => {
      if (!this.version) throw new Error("There is no model to ask yet.");
      const turn = ++this.turn;
      showNothing(files.length === 1 ? "Asking about one image…" : `Asking about ${files.length} images…`);
      const form = new FormData();
      for (const file of files) form.append("files", file, file.name);
      const path = `api/v1/models/${encodeURIComponent(this.model.name)}/classify/batch`;
      const { body, timing } = await this.post(path, { top_k: TOP_K }, form);
      if (turn !== this.turn) return;
      this.setImages(files.map((file, at) => ({
        name: file.name, url: URL.createObjectURL(file), blob: file, ...body.results[at],
      })));
      showTiming(timing);
      this.tell({ path, query: this.query({ top_k: TOP_K }), names: files.map(({ name }) => name), many: true });
      this.choose(this.images.findIndex(({ predictions }) => predictions));
    });
  }

  /** Looks closer at one of the images. */
  choose(index) {
    showAnswers(this.images, index, (other) => this.choose(other));
    const image = this.images[index];
    if (!image?.predictions) return this.inside.clear("No image could be read, so there is nothing to look into.");
    this.looking = image;
    const about = { methods: this.version.explanations, labels: this.model.labels, best: image.predictions[0].index };
    this.whileBusy(() => this.inside.look(image.blob, about));
  }

  async explain(method, blob, wanted, signal) {
    const query = this.query({ method, ...(wanted === null ? {} : { class: this.model.labels[wanted] }) });
    const path = `${this.explainPath()}?${new URLSearchParams(query)}`;
    return (await this.api.json(path, { method: "POST", body: blob, signal })).body;
  }

  explainPath() {
    return `api/v1/models/${encodeURIComponent(this.model.name)}/explain`;
  }

  tellHeat(wanted) {
    const query = this.query({ method: "occlusion", class: this.model.labels[wanted] });
    this.tell({ path: this.explainPath(), query, names: [this.looking.name], many: false });
  }

  tell(action) {
    const drawing = this.images.find(({ drawn }) => drawn);
    showSnippets(action, Boolean(this.api.key), drawing ? { name: DRAWING, url: drawing.url } : null);
  }

  /** The version is named where it is not the one that answers anyway. */
  query(parameters) {
    return this.versionName === this.model.default_version ? parameters : { ...parameters, version: this.versionName };
  }

  post(path, parameters, body) {
    return this.api.json(`${path}?${new URLSearchParams(this.query(parameters))}`, { method: "POST", body });
  }

  /** Does it; what goes wrong is said in the page. */
  async guarded(work) {
    const trouble = byId("trouble");
    trouble.hidden = true;
    try {
      await this.whileBusy(work);
    } catch (error) {
      if (this.version) showTrouble(error);
      else {
        trouble.hidden = false;
        show(trouble, [...notice(error).childNodes], " ", el("button", { type: "button", onclick: () => this.start() }, "Try again"));
      }
    } finally {
      byId("forget-key").hidden = !this.api.key;
    }
  }

  /** Says, to those who cannot see it, that what is shown is about to change. */
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

function fill(select, options, chosen) {
  show(select, options.map(([value, text]) => el("option", { value }, text)));
  select.value = chosen;
  select.disabled = false;
}

new Playground().start();
