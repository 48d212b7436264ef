/** One request, watched; which failures may pass, and how long to wait before another attempt. */

import { abortError, type ErrorCode, MemoryR1Error } from "../errors.js";

/** How requests are made. */
export interface Network {
  /** Sent with every request. */
  headers: Record<string, string>;
  signal: AbortSignal | undefined;
  /** How many attempts may follow the first. */
  retries: number;
  /** The pause before the second attempt, in milliseconds; each next one is twice as long. */
  retryMs: number;
  /** How long a server may say nothing, in milliseconds. */
  idleMs: number;
  /** Told what a person who waits may want to know. */
  onNote(text: string): void;
}

/** What differs from request to request. */
export interface Init {
  method?: "GET" | "HEAD";
  headers?: Record<string, string>;
  cache: RequestCache;
}

/** As requests are made unless a test is in a hurry. */
export const PATIENCE = { retries: 4, retryMs: 250, idleMs: 30_000 };

/** Longer than this nobody waits: the server is better asked later. */
const LONGEST_PAUSE_MS = 60_000;
/** This much progress forgives all failures so far. */
const PROGRESS = 8 * 2 ** 20;

/** A failure that another attempt may not meet: a cut connection, a busy server. */
export class PassingFailure extends MemoryR1Error {
  /** What the server answered; undefined where there was no answer. */
  readonly status: number | undefined;
  /** How long the server asked to wait, in milliseconds. */
  readonly afterMs: number;

  constructor(
    code: ErrorCode,
    message: string,
    options: { cause?: unknown; status?: number; afterMs?: number } = {},
  ) {
    super(code, message, options.cause === undefined ? undefined : { cause: options.cause });
    this.status = options.status;
    this.afterMs = options.afterMs ?? 0;
  }
}

/**
 * Asks once, and gives an answer of 2xx (or of 416 to a range, or of 405 to a HEAD) to `read`, which
 * says by `heard` that more has come. Null where there is no such file. Throws an `AbortError`, a
 * {@link PassingFailure}, or `NOT_REACHABLE`.
 */
export async function request<T>(
  url: URL,
  init: Init,
  network: Network,
  read: (response: Response, heard: () => void) => Promise<T>,
): Promise<T | null> {
  const { signal, idleMs } = network;
  if (signal?.aborted) throw abortError(signal);
  const stop = new AbortController();
  const cancel = () => stop.abort();
  let timer: ReturnType<typeof setTimeout> | undefined;
  const heard = () => {
    clearTimeout(timer);
    timer = setTimeout(cancel, idleMs);
  };
  signal?.addEventListener("abort", cancel, { once: true });
  heard();
  try {
    const headers = { ...network.headers, ...init.headers };
    const response = await fetch(url, { ...init, headers, signal: stop.signal });
    heard();
    return isMissing(url, response) ? null : await read(accepted(url, response, init), heard);
  } catch (error) {
    if (signal?.aborted) throw abortError(signal);
    if (error instanceof MemoryR1Error) throw error;
    const why = stop.signal.aborted ? `nothing came for ${idleMs / 1000} s` : "the connection failed";
    throw new PassingFailure("NOT_REACHABLE", `the model cannot be downloaded from ${url.href}: ${why}`, {
      cause: error,
    });
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", cancel);
    // Nobody reads what is left of an answer.
    stop.abort();
  }
}

/** Attempts until one succeeds, until a failure does not pass, or until there were too many. */
export async function withRetries<T>(
  network: Network,
  attempt: () => Promise<T>,
  loaded: () => number = () => 0,
): Promise<T> {
  let failures = 0;
  let forgiven = loaded();
  for (;;) {
    try {
      return await attempt();
    } catch (error) {
      if (!(error instanceof PassingFailure)) throw error;
      if (loaded() >= forgiven + PROGRESS) {
        failures = 0;
        forgiven = loaded();
      }
      if (failures >= network.retries || globalThis.navigator?.onLine === false) throw error;
      // A server that has never answered may not be there at all.
      const first = loaded() > 0 || error.status !== undefined ? 2 * network.retryMs : network.retryMs;
      const wait = Math.max(error.afterMs, first * 2 ** failures);
      if (wait > LONGEST_PAUSE_MS) throw error;
      failures += 1;
      const why = error.status === undefined ? "The connection was cut" : "The server is busy";
      network.onNote(`${why}; trying again in ${Math.ceil(wait / 1000)} s`);
      await pause(wait, network.signal);
    }
  }
}

/**
 * How many bytes an answer has at least. A packed answer has the length of its packed form, and in
 * another origin's it cannot be seen that it is packed: so this is never the whole length.
 */
export function leastLength(headers: Headers): number {
  return headers.has("content-encoding") ? 0 : (wholeNumber(headers, "content-length") ?? 0);
}

/** An answer that ended before its end. */
export function endedEarly(url: URL, length: number, least: number): PassingFailure {
  const why = `${url.href} ended after ${length} of ${least} bytes`;
  return new PassingFailure("NOT_REACHABLE", `the model cannot be downloaded: ${why}`);
}

/** A header that counts something. */
export function wholeNumber(headers: Headers, name: string): number | undefined {
  const value = headers.get(name) ?? "";
  return /^\d+$/.test(value) ? Number(value) : undefined;
}

function isMissing(url: URL, response: Response): boolean {
  if (response.status !== 404 && response.status !== 410) return false;
  // The hub says so where it is not only the file that is missing.
  const what = response.headers.get("x-error-code");
  if (what === "RepoNotFound" || what === "RevisionNotFound") {
    throw notReachable(url, response, "there is no such model or revision; look at its name");
  }
  return true;
}

function accepted(url: URL, response: Response, { method, headers }: Init): Response {
  const { status, ok } = response;
  if (ok || (status === 416 && headers?.Range !== undefined)) return response;
  if (method === "HEAD" && (status === 405 || status === 501)) return response;
  if (status === 401 || status === 403) {
    throw notReachable(
      url,
      response,
      "the model is not there, or is not for everybody; look at its name, or give hub.token",
    );
  }
  if (status === 408 || status === 425 || status === 429 || status >= 500) {
    throw new PassingFailure("NOT_REACHABLE", notReachable(url, response, "try again later").message, {
      status,
      afterMs: retryAfter(response),
    });
  }
  throw notReachable(url, response);
}

function notReachable(url: URL, response: Response, advice?: string): MemoryR1Error {
  const what = `the model cannot be downloaded: ${url.href} answered ${response.status}`;
  return new MemoryR1Error("NOT_REACHABLE", advice === undefined ? what : `${what}: ${advice}`);
}

/** `Retry-After`: seconds or a date. */
function retryAfter(response: Response): number {
  const value = response.headers.get("retry-after") ?? "";
  const ms = /^\d+$/.test(value) ? Number(value) * 1000 : Date.parse(value) - Date.now();
  return ms > 0 ? ms : 0;
}

function pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    const cancel = () => {
      clearTimeout(timer);
      reject(abortError(signal));
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", cancel);
      resolve();
    }, ms);
    signal?.addEventListener("abort", cancel, { once: true });
    if (signal?.aborted) cancel();
  });
}
