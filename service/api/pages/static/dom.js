// Small helpers for the document. Strings are always inserted as text, never parsed as HTML.

/** Returns the element with this id. A missing element is a bug, because page and scripts belong together. */
export function byId(id) {
  const element = document.getElementById(id);
  if (!element) throw new Error(`the page has no #${id}`);
  return element;
}

/** Creates an element: `props` are properties (`className`, `onclick`) or attributes (`aria-label`, `for`). */
export function el(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (name in element) element[name] = value;
    else if (value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

export function show(container, ...children) {
  container.replaceChildren(...children.flat().filter(Boolean));
}

/** Creates a notice with the error's message and hint. */
export function errorNotice(error) {
  const parts = [el("strong", {}, error.message || String(error))];
  if (error.hint) parts.push(" ", el("span", {}, error.hint));
  return el("div", { className: "notice" }, parts);
}

export function pixelated(base64, alt) {
  return el("img", { className: "pixels", src: `data:image/png;base64,${base64}`, alt });
}

export function percent(probability) {
  if (probability >= 0.9999) return "> 99.99 %";
  if (probability < 0.0001) return "< 0.01 %";
  return `${(probability * 100).toFixed(probability > 0.999 ? 2 : 1)} %`;
}

export function milliseconds(value) {
  const digits = value < 0.1 ? 2 : value < 10 ? 1 : 0;
  return `${value.toFixed(digits)} ms`;
}
