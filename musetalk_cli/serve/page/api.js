/** Requests to the service: the token, and refusals in the service's own words. */

const STORED = "musetalk token";
const UNREACHABLE_HINT = "Check that musetalk serve is running, and that the network reaches it.";

/** Why a request failed, as it is shown: a sentence and what to do. `status` is 0 where no answer came. */
export class Refusal extends Error {
  constructor(status, message, hint = null) {
    super(message);
    this.status = status;
    this.hint = hint;
  }
}

/** No answer came. */
export class Unanswered extends Refusal {
  constructor(message) {
    super(0, message, UNREACHABLE_HINT);
  }
}

async function refusalOf(response) {
  try {
    const { error, hint } = await response.json();
    if (error) return new Refusal(response.status, String(error), hint ? String(hint) : null);
  } catch {
    // A proxy between us and the service answers in its own way.
  }
  return new Refusal(response.status, `The service answered ${response.status} ${response.statusText}.`);
}

export class Api {
  #token = sessionStorage.getItem(STORED);

  /** Called when the service wants a token, or another one. */
  onunauthorized = () => {};

  get token() {
    return this.#token;
  }

  /** Kept until the browser's tab is closed. */
  set token(token) {
    this.#token = token;
    sessionStorage.setItem(STORED, token);
  }

  /**
   * Send a request and give its response.
   *
   * @param {string} path
   * @param {{method?: string, body?: BodyInit, json?: object, keepalive?: boolean, timeout?: number}} options
   *     `json` is sent instead of a body; `timeout` is in milliseconds.
   * @throws {Refusal} Of the kind Unanswered where no answer came.
   */
  async request(path, { method = "GET", body, json, keepalive = false, timeout = 20_000 } = {}) {
    const token = this.#token;
    const headers = token ? { Authorization: `Bearer ${token}` } : {};
    if (json) headers["Content-Type"] = "application/json";
    const options = { method, headers, keepalive, cache: "no-store", body: json ? JSON.stringify(json) : body };
    let response;
    try {
      response = await fetch(path, { ...options, signal: AbortSignal.timeout(timeout) });
    } catch (error) {
      const slow = error.name === "TimeoutError";
      throw new Unanswered(slow ? "The service does not answer." : "The service cannot be reached.");
    }
    if (response.ok) return response;
    const refusal = await refusalOf(response);
    const current = token === this.#token; // another may have been entered meanwhile
    if (response.status === 401 && current) this.onunauthorized();
    throw refusal;
  }

  /** The JSON that a path gives. */
  async read(path, options) {
    const response = await this.request(path, options);
    return await response.json();
  }

  /** The bytes that a path gives. An `<img>` of its own could not send the token. */
  async blob(path) {
    const response = await this.request(path);
    return await response.blob();
  }
}

/** The path of an avatar, with a name that may hold anything. */
export function avatarPath(name, what) {
  return `/v1/avatars/${encodeURIComponent(name)}/${what}`;
}
