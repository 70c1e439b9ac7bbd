// Converts the Markdown of model cards to elements: headings, paragraphs, lists, tables, code, bold, and images from the
// folder of the card. HTML is not parsed: everything else stays text.

import { el } from "./dom.js";

const INLINE = /`([^`]+)`|\*\*([^*]+)\*\*|!\[([^\]]*)\]\(([\w.-]+)\)/g;

/** Returns the elements of a card. `image(file, alt)` creates the element of an image that the card names. */
export function renderMarkdown(text, image) {
  const blocks = [];
  const lines = text.split("\n");
  while (lines.length) {
    const block = takeNextBlock(lines);
    if (block) blocks.push(toElement(block, image));
  }
  return blocks;
}

/** Removes the next block from the lines: a fence up to its end, otherwise all lines up to the next empty line. */
function takeNextBlock(lines) {
  if (lines[0].startsWith("```")) {
    const end = lines.indexOf("```", 1);
    const block = lines.splice(0, end < 0 ? lines.length : end + 1);
    return { code: block.slice(1, end < 0 ? undefined : -1).join("\n") };
  }
  let end = lines.findIndex((line) => line.trim() === "");
  if (end < 0) end = lines.length;
  const block = lines.splice(0, end);
  if (!end) lines.shift();
  return block.length ? { lines: block } : null;
}

function toElement({ code, lines }, image) {
  if (code !== undefined) return el("pre", {}, el("code", {}, code));
  const [first] = lines;
  const heading = /^(#{1,4}) (.*)/.exec(first);
  if (heading) return el(`h${Math.min(heading[1].length + 2, 6)}`, {}, inline(heading[2], image));
  if (first.startsWith("- ")) return list(lines, image);
  if (first.startsWith("|")) return table(lines, image);
  return el("p", {}, inline(lines.join(" "), image));
}

function list(lines, image) {
  return el("ul", {}, lines.map((line) => el("li", {}, inline(line.replace(/^- /, ""), image))));
}

function table(lines, image) {
  const cells = (line) => line.replace(/^\||\|$/g, "").split("|").map((cell) => cell.trim());
  const [head, , ...rows] = lines.map(cells);
  const row = (name) => (values) => el("tr", {}, values.map((value) => el(name, {}, inline(value, image))));
  const top = head.some(Boolean) ? el("thead", {}, row(head.every(Boolean) ? "th" : "td")(head)) : null;
  return el("table", {}, top, el("tbody", {}, rows.map(row("td"))));
}

function inline(text, image) {
  const parts = [];
  let at = 0;
  for (const match of text.matchAll(INLINE)) {
    parts.push(text.slice(at, match.index));
    const [, code, bold, alt, file] = match;
    if (code !== undefined) parts.push(el("code", {}, code));
    else if (bold !== undefined) parts.push(el("strong", {}, bold));
    else parts.push(image(file, alt));
    at = match.index + match[0].length;
  }
  return [...parts, text.slice(at)];
}
