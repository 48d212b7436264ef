// A web server in the hub's URL layout, which misbehaves where a test says so.
import { createHash } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

/** A request as it came. */
export interface Asked {
  method: string;
  path: string;
  range: string | undefined;
  ifRange: string | undefined;
  authorization: string | undefined;
}

/** Answers a request in the place of the server. */
export type Fault = (request: IncomingMessage, response: ServerResponse, body: Uint8Array) => void;

export class HubServer {
  /** The files by their paths. */
  readonly files = new Map<string, Uint8Array>();
  /** Headers that are added to those of a file. */
  readonly headers = new Map<string, Record<string, string>>();
  /** False: a HEAD is answered 405. */
  knowsHead = true;
  /** All requests, in order. */
  readonly asked: Asked[] = [];
  readonly #faults = new Map<string, Fault[]>();
  readonly #redirects = new Map<string, { to: string; headers: Record<string, string> }>();
  readonly #server: Server;
  #port = 0;

  constructor() {
    this.#server = createServer((request, response) => this.#answer(request, response));
  }

  /** Listens; again at the same place after a stop. */
  async start(): Promise<void> {
    await new Promise<void>((resolve) => this.#server.listen(this.#port, "127.0.0.1", resolve));
    this.#port = (this.#server.address() as AddressInfo).port;
  }

  stop(): Promise<void> {
    this.#server.closeAllConnections();
    return new Promise((resolve) => this.#server.close(() => resolve()));
  }

  get endpoint(): string {
    return `http://127.0.0.1:${this.#port}`;
  }

  /** Puts files into a repository. */
  publish(repository: string, files: Iterable<[string, Uint8Array]>, revision = "main"): void {
    for (const [name, bytes] of files) this.files.set(`/${repository}/resolve/${revision}/${name}`, bytes);
  }

  /** Sends whoever asks for one path to another. */
  redirect(path: string, to: string, headers: Record<string, string>): void {
    this.#redirects.set(path, { to, headers });
  }

  /** The next GETs of a path are answered by these, one each. */
  misbehave(path: string, ...faults: Fault[]): void {
    this.#faults.set(path, [...(this.#faults.get(path) ?? []), ...faults]);
  }

  /** What was asked for of the files that end so. */
  askedFor(end: string, method = "GET"): Asked[] {
    return this.asked.filter((one) => one.method === method && one.path.endsWith(end));
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    const path = request.url ?? "";
    const { range, authorization } = request.headers;
    const ifRange = request.headers["if-range"] as string | undefined;
    this.asked.push({ method: request.method ?? "", path, range, ifRange, authorization });
    const body = this.files.get(path);
    const fault = request.method === "GET" ? this.#faults.get(path)?.shift() : undefined;
    const redirect = this.#redirects.get(path);
    if (request.method === "HEAD" && !this.knowsHead) response.writeHead(405).end();
    else if (redirect !== undefined)
      response.writeHead(302, { ...redirect.headers, location: redirect.to }).end();
    else if (fault !== undefined) fault(request, response, body ?? new Uint8Array());
    else if (body === undefined) response.writeHead(404, { "x-error-code": "EntryNotFound" }).end();
    else serve(request, response, body, this.headers.get(path));
  }
}

/** As a good server does: a HEAD, a range, `If-Range`. */
export function serve(
  request: IncomingMessage,
  response: ServerResponse,
  body: Uint8Array,
  more: Record<string, string> = {},
): void {
  const headers = { etag: etagOf(body), "accept-ranges": "bytes", ...more };
  const ifRange = request.headers["if-range"];
  const from = /^bytes=(\d+)-$/.exec(request.headers.range ?? "")?.[1];
  if (from === undefined || (ifRange !== undefined && ifRange !== headers.etag)) {
    response.writeHead(200, { ...headers, "content-length": body.length });
    response.end(request.method === "HEAD" ? undefined : body);
  } else if (Number(from) >= body.length) {
    response.writeHead(416, { ...headers, "content-range": `bytes */${body.length}` }).end();
  } else {
    const range = `bytes ${from}-${body.length - 1}/${body.length}`;
    const rest = body.subarray(Number(from));
    response.writeHead(206, { ...headers, "content-range": range, "content-length": rest.length }).end(rest);
  }
}

/** Promises all, and ends the connection after `bytes` of what it was asked for. */
export function cutAfter(bytes: number, headers: Record<string, string> = {}): Fault {
  return (request, response, body) => {
    const from = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? "")?.[1] ?? 0);
    const rest = body.subarray(from);
    const range = { "content-range": `bytes ${from}-${body.length - 1}/${body.length}` };
    response.writeHead(from > 0 ? 206 : 200, {
      etag: etagOf(body),
      "content-length": rest.length,
      ...(from > 0 ? range : {}),
      ...headers,
    });
    // The client has time to read what came before the end.
    response.write(rest.subarray(0, bytes), () => setTimeout(() => response.socket?.end(), 50));
  };
}

/** Answers so, without a body. */
export function status(code: number, headers: Record<string, string> = {}): Fault {
  return (_request, response) => response.writeHead(code, headers).end();
}

/** Answers 200 with another body than the file, whatever range was asked for. */
export function instead(body: Uint8Array, headers: Record<string, string> = {}): Fault {
  return (_request, response) =>
    response.writeHead(200, { "content-length": body.length, ...headers }).end(body);
}

/** Breaks the connection without an answer. */
export const noAnswer: Fault = (_request, response) => void response.socket?.destroy();

/** Sends the head and a few bytes, and then nothing more. */
export const stall: Fault = (_request, response, body) => {
  response.writeHead(200, { etag: etagOf(body), "content-length": body.length });
  response.write(body.subarray(0, 1000));
};

export function etagOf(body: Uint8Array): string {
  return `"${createHash("sha1").update(body).digest("hex")}"`;
}

export function hashOf(body: Uint8Array): string {
  return createHash("sha256").update(body).digest("hex");
}

/** The files of a bundle, and its manifest. */
export function bundleOf(files: Record<string, Uint8Array>): [string, Uint8Array][] {
  const entries = Object.entries(files).map(([name, bytes]) => [
    name,
    { size: bytes.length, sha256: hashOf(bytes) },
  ]);
  const manifest = { format_version: 1, files: Object.fromEntries(entries) };
  return [["manifest.json", text(JSON.stringify(manifest))], ...Object.entries(files)];
}

export function text(value: string): Uint8Array {
  return new TextEncoder().encode(value);
}

/** Bytes of which no two stretches are alike. */
export function noise(length: number, seed = 1): Uint8Array {
  const words = new Uint32Array(Math.ceil(length / 4));
  let state = seed;
  for (let place = 0; place < words.length; place++) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    words[place] = state ^ (state >>> 15);
  }
  return new Uint8Array(words.buffer, 0, length);
}
