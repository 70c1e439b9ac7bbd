// Sends requests to the service that the page came from, with an API key if the service requires one. Independent of the page.

const KEY = "convoy-key";

/** An error: `message` and `hint` are shown, `code` and `status` are for the scripts. */
export class ApiError extends Error {
  constructor(message, hint, { code = "", status = 0, retryAfterS = 0 } = {}) {
    super(message);
    Object.assign(this, { hint, code, status, retryAfterS });
  }
}

export class Api {
  /** `promptForKey(message)` returns the key that the user typed, or null. */
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

  /** Sends one request. If a key is missing or wrong, asks for a key and sends the request again. Throws ApiError. */
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

  /** Asks the user only once, even if several requests fail at the same time because a key is missing. */
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
    return new ApiError(`The service responded with status ${reply.status}.`, "Try again in a moment.", details);
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
