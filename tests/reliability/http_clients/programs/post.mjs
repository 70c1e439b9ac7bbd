// Posts a file with node's fetch.
// Arguments: URL, file, how often, and headers as name and value. Prints the status of each answer, or "lost" and why.

import { readFileSync } from "node:fs";

const [url, file, times, ...rest] = process.argv.slice(2);
const body = readFileSync(file);
const headers = {};
for (let at = 0; at < rest.length; at += 2) headers[rest[at]] = rest[at + 1];
for (let count = 0; count < Number(times); count++) {
  try {
    const answer = await fetch(url, { method: "POST", body, headers });
    await answer.text();
    console.log(answer.status);
  } catch (error) {
    console.log(`lost ${error.cause ?? error}`);
  }
}
