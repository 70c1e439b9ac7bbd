// Posts files with node's fetch.
// Arguments: URL and files. Prints the status of each answer, or "lost" and why.

import { readFileSync } from "node:fs";

const [url, ...files] = process.argv.slice(2);
const bodies = new Map(files.map((file) => [file, null]));
for (const file of bodies.keys()) bodies.set(file, readFileSync(file));
for (const file of files) {
  try {
    const signal = AbortSignal.timeout(60_000);
    const answer = await fetch(url, { method: "POST", body: bodies.get(file), signal });
    await answer.text();
    console.log(answer.status);
  } catch (error) {
    console.log(`lost ${error.cause ?? error}`);
  }
}
