// The drawing area: strokes by mouse, pen, finger or keyboard. Independent of the models.

const SIZE = 280; // of the coordinates, independent of the size on the screen
const PEN = 22;
const STEP = 8;
const SEVEN = [
  [[78, 74], [110, 70], [150, 68], [198, 66]],
  [[198, 66], [182, 104], [160, 150], [142, 192], [132, 222]],
];

export class Pad {
  /** `onChange` is called when a stroke ends or is undone, or when the drawing is cleared. */
  constructor(canvas, onChange) {
    this.canvas = canvas;
    this.onChange = onChange;
    this.strokes = [];
    this.stroke = null;
    this.cursor = null;
    this.penDown = false;
    this.listen();
    this.paint();
  }

  listen() {
    const { canvas } = this;
    canvas.addEventListener("pointerdown", (event) => this.beginStroke(event));
    canvas.addEventListener("pointermove", (event) => this.extendStroke(event));
    for (const end of ["pointerup", "pointercancel", "lostpointercapture"]) {
      canvas.addEventListener(end, () => this.endStroke());
    }
    canvas.addEventListener("keydown", (event) => this.onKey(event));
    canvas.addEventListener("blur", () => this.liftPen());
  }

  get empty() {
    return this.strokes.length === 0;
  }

  clear() {
    this.strokes = [];
    this.changed();
  }

  undo() {
    this.strokes.pop();
    this.changed();
  }

  drawExample() {
    this.strokes = SEVEN.map((stroke) => stroke.map(([x, y]) => ({ x, y })));
    this.changed();
  }

  /** Only the ink: gray values 0..255, SIZE x SIZE. */
  ink() {
    const offscreen = document.createElement("canvas");
    offscreen.width = offscreen.height = SIZE;
    const pen = offscreen.getContext("2d", { willReadFrequently: true });
    this.drawStrokes(pen, "#fff");
    const rgba = pen.getImageData(0, 0, SIZE, SIZE).data;
    const gray = Uint8ClampedArray.from({ length: SIZE * SIZE }, (_, at) => rgba[at * 4 + 3]);
    return { gray, width: SIZE, height: SIZE };
  }

  beginStroke(event) {
    if (event.button !== 0) return;
    event.preventDefault();
    this.canvas.focus({ preventScroll: true });
    this.canvas.setPointerCapture(event.pointerId);
    this.cursor = null;
    this.penDown = false;
    this.stroke = [this.positionOf(event)];
    this.strokes.push(this.stroke);
    this.paint();
  }

  extendStroke(event) {
    if (!this.stroke) return;
    const events = event.getCoalescedEvents?.() ?? [];
    for (const each of events.length ? events : [event]) this.stroke.push(this.positionOf(each));
    this.paint();
  }

  endStroke() {
    if (!this.stroke) return;
    this.stroke = null;
    this.changed();
  }

  onKey(event) {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (event.key in moves) this.movePen(...moves[event.key]);
    else if (event.key === " ") this.togglePen();
    else if (event.key === "Backspace") this.undo();
    else if (event.key === "Escape") this.liftPen();
    else return;
    event.preventDefault();
  }

  movePen(right, down) {
    const from = this.cursor ?? { x: SIZE / 2, y: SIZE / 2 };
    const clamp = (value) => Math.min(Math.max(value, 0), SIZE);
    this.cursor = { x: clamp(from.x + right * STEP), y: clamp(from.y + down * STEP) };
    if (this.penDown) this.strokes.at(-1)?.push(this.cursor);
    this.paint();
  }

  togglePen() {
    if (this.penDown) return this.liftPen();
    this.cursor ??= { x: SIZE / 2, y: SIZE / 2 };
    this.penDown = true;
    this.strokes.push([this.cursor]);
    this.paint();
  }

  liftPen() {
    const wasDown = this.penDown;
    this.penDown = false;
    if (wasDown) this.changed();
    else this.paint();
  }

  changed() {
    this.penDown = false;
    this.paint();
    this.onChange();
  }

  positionOf(event) {
    const box = this.canvas.getBoundingClientRect();
    return {
      x: ((event.clientX - box.left) / box.width) * SIZE,
      y: ((event.clientY - box.top) / box.height) * SIZE,
    };
  }

  paint() {
    const { canvas } = this;
    const pen = canvas.getContext("2d");
    pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.clearRect(0, 0, canvas.width, canvas.height);
    pen.scale(canvas.width / SIZE, canvas.height / SIZE);
    this.drawStrokes(pen, "#fff");
    if (this.cursor) this.drawCursor(pen);
  }

  drawStrokes(pen, color) {
    Object.assign(pen, { lineWidth: PEN, lineCap: "round", lineJoin: "round", strokeStyle: color });
    for (const stroke of this.strokes) {
      pen.beginPath();
      pen.moveTo(stroke[0].x, stroke[0].y);
      for (const { x, y } of stroke.length > 1 ? stroke : [stroke[0]]) pen.lineTo(x, y);
      pen.stroke();
    }
  }

  drawCursor(pen) {
    Object.assign(pen, { lineWidth: 3, strokeStyle: "#fbbf24", fillStyle: "#fbbf24" });
    pen.beginPath();
    pen.arc(this.cursor.x, this.cursor.y, PEN / 2, 0, 2 * Math.PI);
    if (this.penDown) pen.fill();
    else pen.stroke();
  }
}
