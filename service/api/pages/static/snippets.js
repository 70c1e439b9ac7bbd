// The commands for the last request: curl, and Python without extra packages. Pure functions, except the last ones.

import { byId, el, show } from "./dom.js";

/** `action` is {path, query, names, method?}; `path` is relative to the page, `names` are the names of the files. */
export function showSnippets(action, withKey, saved) {
  const url = new URL(action.path, document.baseURI);
  for (const [name, value] of Object.entries(action.query)) url.searchParams.set(name, value);
  const snippets = [
    ["curl", curlLine(url.href, action, withKey)],
    ["Python", pythonLines(url.href, action, withKey)],
  ];
  show(byId("snippets"), saved ? saveLink(saved) : null, snippets.map(([name, text]) => snippet(name, text)));
}

export function curlLine(url, { names, many }, withKey) {
  const key = withKey ? ` \\\n  -H "Authorization: Bearer $CONVOY_KEY"` : "";
  const images = many ? names.map((name) => ` \\\n  -F ${quoted(`files=@"${name}"`)}`).join("") : ` \\\n  --data-binary ${quoted(`@${names[0]}`)}`;
  return `curl ${quoted(url)}${key}${images}`;
}

export function pythonLines(url, { names, many }, withKey) {
  const headers = [];
  if (withKey) headers.push(`"Authorization": "Bearer " + os.environ["CONVOY_KEY"]`);
  if (many) headers.push(`"Content-Type": "application/json"`);
  const modules = [...(many ? ["base64"] : []), "json", ...(withKey ? ["os"] : []), "urllib.request"];
  const body = many
    ? [
        `names = ${JSON.stringify(names)}`,
        `images = [{"id": name, "data": base64.b64encode(open(name, "rb").read()).decode()} for name in names]`,
        `body = json.dumps({"images": images}).encode()`,
      ]
    : [`body = open(${JSON.stringify(names[0])}, "rb").read()`];
  return [
    `import ${modules.join(", ")}`,
    "",
    ...body,
    `request = urllib.request.Request(${JSON.stringify(url)}, body, {${headers.join(", ")}})`,
    "print(json.load(urllib.request.urlopen(request)))",
  ].join("\n");
}

function quoted(text) {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

function snippet(name, text) {
  const copy = el("button", { type: "button", "aria-label": `Copy the ${name} lines` }, "Copy");
  copy.addEventListener("click", () => copied(copy, text));
  return el(
    "div",
    { className: "snippet" },
    el("div", { className: "snippet-head" }, el("h3", {}, name), copy),
    el("pre", { tabIndex: 0, role: "region", "aria-label": `${name} lines` }, el("code", {}, text)),
  );
}

async function copied(button, text) {
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Select and copy it by hand"; // browsers allow it on https and localhost only
  }
  setTimeout(() => (button.textContent = "Copy"), 2000);
}

function saveLink({ name, url }) {
  return el("p", {}, el("a", { href: url, download: name, className: "button" }, `Save the drawing as ${name}`));
}
