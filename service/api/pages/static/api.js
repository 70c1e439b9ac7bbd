// Sends requests to the service that the page came from, with an API key where it needs one. Knows nothing of the page.

const KEY = "convoy-key";

/** What went wrong, in words: `message` and `hint` for people, `code` and `status` for us. */
export class ApiError extends Error {
  constructor(message, hint, { code = "", status = 0, retryAfterS = 0 } = {}) {
    super(message);
    Object.assign(this, { hint, code, status, retryAfterS });
  }
}

export class Api {
  /** `promptForKey(message)` gives a key that a person typed, or null. */
  constructor(promptForKey) {
    this.promptForKey = promptForKey;
    this.pendingPrompt = null;
  }

  get key() {
    return sessionStorage.getItem(KEY);
  }

  forgetKey() {
    sessionStorage.removeItem(KEY);
  }

  async json(path, options) {
    const { reply, tookMs } = await this.request(path, options);
    return { body: await reply.json(), timing: parseServerTiming(reply, tookMs) };
  }

  async text(path) {
    return (await this.request(path)).reply.text();
  }

  async blob(path) {
    return (await this.request(path)).reply.blob();
  }

  /** Sends one request; where a key is missing or wrong, asks for one and sends it again. Throws ApiError. */
  async request(path, options = {}) {
    for (;;) {
      const key = this.key;
      const headers = { ...options.headers, ...(key ? { Authorization: `Bearer ${key}` } : {}) };
      const startedMs = performance.now();
      const reply = await fetchOrThrow(path, { ...options, headers });
      if (reply.ok) return { reply, tookMs: performance.now() - startedMs };
      const error = await toApiError(reply);
      if (reply.status !== 401 || !(await this.newKey(key, error))) throw error;
    }
  }

  /** Several requests may find out at once that a key is missing; people are asked once. */
  async newKey(rejected, error) {
    if (this.key !== rejected) return true;
    this.pendingPrompt ??= this.promptForKey(rejected ? error.message : "").finally(() => (this.pendingPrompt = null));
    const key = await this.pendingPrompt;
    if (key) sessionStorage.setItem(KEY, key);
    return Boolean(key);
  }
}

async function fetchOrThrow(path, options) {
  try {
    return await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The service cannot be reached.", "Is it still running, and are you connected?");
  }
}

async function toApiError(reply) {
  const details = { status: reply.status, retryAfterS: Number(reply.headers.get("retry-after")) || 0 };
  try {
    const { error } = await reply.json();
    return new ApiError(error.message, error.hint, { ...details, code: error.code });
  } catch {
    return new ApiError(`The service answered with status ${reply.status}.`, "Try again in a moment.", details);
  }
}

/** Milliseconds of each stage and the batch's size, from the standard Server-Timing header. */
function parseServerTiming(reply, tookMs) {
  const timing = { tookMs };
  for (const entry of (reply.headers.get("server-timing") ?? "").split(",")) {
    const [name, ...parameters] = entry.trim().split(";");
    for (const parameter of parameters) {
      const [what, value] = parameter.split("=");
      if (what === "dur" || what === "desc") timing[name] = Number(value);
    }
  }
  return timing;
}
