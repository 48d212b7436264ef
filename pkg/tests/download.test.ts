// Models from a server that misbehaves on purpose, with Cache Storage and without.
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { loadBundle } from "../src/bundle.js";
import { CACHE_NAME } from "../src/models/cache.js";
import { PIECE_BYTES } from "../src/models/download.js";
import type { Note } from "../src/models/progress.js";
import { readSource } from "../src/models/source.js";
import { MemoryCacheStorage } from "./cache_storage.js";
import {
  bundleOf,
  cutAfter,
  etagOf,
  HubServer,
  hashOf,
  instead,
  noAnswer,
  noise,
  serve,
  stall,
  status,
  text,
} from "./hub_server.js";

const WEIGHTS = noise(300_000);
const RIGHT = hashOf(WEIGHTS);
const PATH = "/org/tiny/resolve/main/model.safetensors";
const MANIFEST = "/org/tiny/resolve/main/manifest.json";
const bundle = (weights = WEIGHTS) => bundleOf({ "config.json": text("{}"), "model.safetensors": weights });

let hub: HubServer;
let storage: MemoryCacheStorage;
let notes: Note[];
let loaded: number[];
beforeEach(async () => {
  hub = new HubServer();
  await hub.start();
  hub.publish("org/tiny", bundle());
  storage = new MemoryCacheStorage();
  vi.stubGlobal("caches", storage);
  notes = [];
  loaded = [];
});
afterEach(async () => {
  vi.unstubAllGlobals();
  await hub.stop();
});

interface How {
  signal?: AbortSignal;
  idleMs?: number;
  onLoaded?: (loaded: number) => void;
}

/** The hash of the weights of `org/tiny`. */
async function weights({ signal, idleMs = 30_000, onLoaded }: How = {}): Promise<string> {
  const source = readSource("org/tiny", { endpoint: hub.endpoint });
  const onBytes = (bytes: number, _total: number, note?: Note) => {
    loaded.push(bytes);
    if (note !== undefined) notes.push(note);
    onLoaded?.(bytes);
  };
  const files = await loadBundle(source, onBytes, signal, { retryMs: 1, idleMs });
  return hashOf(files.get("model.safetensors") ?? new Uint8Array());
}

const isKept = async () => (await (await storage.open(CACHE_NAME)).match(hub.endpoint + PATH)) !== undefined;
const pieces = async () =>
  (await (await storage.open(CACHE_NAME)).keys()).filter(({ url }) => url.includes("/piece/"));
const ranges = () => hub.askedFor("model.safetensors").map(({ range }) => range);
const start = (range: string | undefined) => Number(/^bytes=(\d+)-$/.exec(range ?? "")?.[1] ?? Number.NaN);

describe.each(["with Cache Storage", "without"])("a download %s", (how) => {
  beforeEach(() => {
    if (how === "without") vi.stubGlobal("caches", undefined);
  });

  it("that is cut goes on where it ended", async () => {
    hub.misbehave(PATH, cutAfter(100_000), cutAfter(100_000));
    expect(await weights()).toBe(RIGHT);
    const [first, second, third] = hub.askedFor("model.safetensors");
    expect(first?.range).toBeUndefined();
    expect(start(second?.range)).toBeGreaterThan(0);
    expect(start(second?.range)).toBeLessThanOrEqual(100_000);
    expect(start(third?.range)).toBeGreaterThan(start(second?.range));
    expect([first, second, third].map((asked) => asked?.ifRange)).toEqual([
      undefined,
      etagOf(WEIGHTS),
      etagOf(WEIGHTS),
    ]);
    expect(hub.askedFor("model.safetensors")).toHaveLength(3);
    expect(loaded.every((bytes, place) => place === 0 || bytes >= (loaded[place - 1] ?? 0))).toBe(true);
    expect(notes.map((note) => note.text)).toContain("The connection was cut; trying again in 1 s");
  });

  it("begins anew where the server ignores the range", async () => {
    hub.misbehave(PATH, cutAfter(100_000), instead(WEIGHTS));
    expect(await weights()).toBe(RIGHT);
    expect(ranges()).toHaveLength(2);
  });

  it("begins anew where the file changed in between", async () => {
    const newer = noise(300_000, 2);
    hub.files.set(PATH, newer);
    // The manifest is of the newer file already; its weights come from a server that is late.
    hub.publish("org/tiny", bundle(newer));
    hub.misbehave(PATH, (request, response) => cutAfter(100_000)(request, response, WEIGHTS));
    expect(await weights()).toBe(hashOf(newer));
    expect(hub.askedFor("model.safetensors").map(({ ifRange }) => ifRange)).toEqual([
      undefined,
      etagOf(WEIGHTS),
    ]);
  });

  it("does without If-Range where a server does not allow it", async () => {
    hub.misbehave(PATH, cutAfter(100_000), noAnswer);
    expect(await weights()).toBe(RIGHT);
    expect(hub.askedFor("model.safetensors").map(({ ifRange }) => ifRange)).toEqual([
      undefined,
      etagOf(WEIGHTS),
      undefined,
    ]);
    expect(start(ranges()[2])).toBeGreaterThan(0);
  });

  it("does not take another part than the one it asked for", async () => {
    hub.misbehave(PATH, cutAfter(100_000), (_request, response) => {
      const range = `bytes 0-${WEIGHTS.length - 1}/${WEIGHTS.length}`;
      response.writeHead(206, { "content-range": range, "content-length": WEIGHTS.length }).end(WEIGHTS);
    });
    expect(await weights()).toBe(RIGHT);
    expect(ranges()[2]).toBeUndefined();
  });

  it("that says nothing any more is asked for again", async () => {
    hub.misbehave(PATH, stall);
    expect(await weights({ idleMs: 200 })).toBe(RIGHT);
    expect(ranges()).toEqual([undefined, "bytes=1000-"]);
  });

  it("that ends too early by its own word is asked for the rest, and then refused", async () => {
    hub.misbehave(PATH, instead(WEIGHTS.subarray(0, 200_000), { etag: etagOf(WEIGHTS) }));
    expect(await weights()).toBe(RIGHT);
    expect(ranges()).toEqual([undefined, "bytes=200000-"]);

    await storage.delete(CACHE_NAME);
    hub.files.set(PATH, WEIGHTS.subarray(0, 200_000));
    await expect(weights()).rejects.toMatchObject({
      code: "MODEL_INTEGRITY",
      message: expect.stringContaining("model.safetensors has 200000 bytes instead of 300000"),
    });
    expect(await isKept()).toBe(false);
    expect(await pieces()).toEqual([]);
  });

  it("that is longer than promised is refused", async () => {
    hub.files.set(PATH, noise(300_001));
    await expect(weights()).rejects.toMatchObject({
      code: "MODEL_INTEGRITY",
      message: expect.stringContaining("model.safetensors has more than the 300000 bytes"),
    });
    expect(await isKept()).toBe(false);
    expect(await pieces()).toEqual([]);
  });

  it("whose length is promised wrongly is never taken as whole", async () => {
    // Too long a promise: the connection ends before, every time.
    const lie = cutAfter(300_000, { "content-length": "300010" });
    hub.misbehave(PATH, lie);
    expect(await weights()).toBe(RIGHT);
    // Too short a one: more comes than was promised, and the client stops there.
    await storage.delete(CACHE_NAME);
    hub.misbehave(PATH, (_request, response) => {
      response.socket?.end(
        Buffer.concat([Buffer.from("HTTP/1.1 200 OK\r\nContent-Length: 299990\r\n\r\n"), WEIGHTS]),
      );
    });
    expect(await weights()).toBe(RIGHT);
  });

  it("with a wrong hash is refused once, and not served", async () => {
    const damaged = WEIGHTS.slice();
    damaged[150_000] = (damaged[150_000] ?? 0) ^ 1;
    hub.misbehave(PATH, instead(damaged, { etag: '"damaged"' }));
    await expect(weights()).rejects.toMatchObject({
      code: "MODEL_INTEGRITY",
      message: expect.stringMatching(/model\.safetensors is damaged.*get the bundle again/),
    });
    expect(await isKept()).toBe(false);
    expect(await pieces()).toEqual([]);
    expect(await weights()).toBe(RIGHT);
    expect(ranges()).toEqual([undefined, undefined]);
  });

  it("of a file that is not there names it, and is not tried again", async () => {
    hub.files.delete(PATH);
    await expect(weights()).rejects.toMatchObject({
      code: "MODEL_INTEGRITY",
      message: expect.stringContaining("model.safetensors is missing"),
    });
    expect(ranges()).toHaveLength(1);
  });

  it("waits as long as a busy server asks for", async () => {
    hub.misbehave(PATH, status(429, { "retry-after": "1" }));
    const before = performance.now();
    expect(await weights()).toBe(RIGHT);
    expect(performance.now() - before).toBeGreaterThan(950);
    expect(notes.map((note) => note.text)).toContain("The server is busy; trying again in 1 s");
  });

  it("does not wait for an hour", async () => {
    hub.misbehave(PATH, status(429, { "retry-after": "3600" }));
    await expect(weights()).rejects.toMatchObject({ code: "NOT_REACHABLE" });
    expect(ranges()).toHaveLength(1);
  });

  it("gives a broken server up after four more attempts", async () => {
    hub.misbehave(PATH, ...Array.from({ length: 5 }, () => status(500)));
    await expect(weights()).rejects.toMatchObject({
      code: "NOT_REACHABLE",
      message: expect.stringContaining("answered 500"),
    });
    expect(ranges()).toHaveLength(5);
    hub.misbehave(PATH, status(502), status(503), noAnswer, status(504));
    expect(await weights()).toBe(RIGHT);
  });

  it("of a model that is not for everybody is not tried again", async () => {
    hub.misbehave(MANIFEST, status(401));
    await expect(weights()).rejects.toMatchObject({
      code: "NOT_REACHABLE",
      message: expect.stringContaining("hub.token"),
    });
    expect(hub.asked).toHaveLength(1);
  });

  it("can be cancelled while it waits for another attempt", async () => {
    hub.misbehave(PATH, status(429, { "retry-after": "30" }));
    const stop = new AbortController();
    setTimeout(() => stop.abort(), 50);
    await expect(weights({ signal: stop.signal })).rejects.toMatchObject({ name: "AbortError" });
  });
});

describe("what came of a download", () => {
  /** Only `bytes` of the weights come, and then it is cancelled. */
  const cancelAfter = async (bytes: number) => {
    hub.misbehave(PATH, (_request, response, body) => {
      response.writeHead(200, { etag: etagOf(body), "content-length": body.length });
      response.write(body.subarray(0, bytes));
    });
    const stop = new AbortController();
    const others = (hub.files.get(MANIFEST)?.length ?? 0) + text("{}").length;
    const onLoaded = (all: number) => {
      if (all === bytes + others) stop.abort();
    };
    await expect(weights({ signal: stop.signal, onLoaded })).rejects.toMatchObject({ name: "AbortError" });
  };

  it("is kept when it is cancelled, and the next session goes on", async () => {
    await cancelAfter(100_000);
    expect(await isKept()).toBe(false);
    expect(await pieces()).toHaveLength(1);
    expect(await weights()).toBe(RIGHT);
    expect(hub.askedFor("model.safetensors")[1]).toMatchObject({
      range: "bytes=100000-",
      ifRange: etagOf(WEIGHTS),
    });
    expect(await isKept()).toBe(true);
    expect(await pieces()).toEqual([]);
  });

  it("is kept when the network fails for good", async () => {
    hub.misbehave(PATH, cutAfter(100_000), ...Array.from({ length: 5 }, () => status(500)));
    await expect(weights()).rejects.toMatchObject({ code: "NOT_REACHABLE" });
    expect(await pieces()).toHaveLength(1);
    expect(await weights()).toBe(RIGHT);
    expect(start(ranges().at(-1))).toBeGreaterThan(0);
  });

  it("is kept piece by piece, and put together again", async () => {
    const large = noise(2 * PIECE_BYTES + 1_000_000);
    hub.publish("org/tiny", bundle(large));
    await cancelAfter(2 * PIECE_BYTES + 5);
    const bounds = (await pieces()).map(({ url }) => new URL(url).search);
    expect(bounds).toEqual([
      `?from=0&to=${PIECE_BYTES}`,
      `?from=${PIECE_BYTES}&to=${2 * PIECE_BYTES}`,
      `?from=${2 * PIECE_BYTES}&to=${2 * PIECE_BYTES + 5}`,
    ]);
    expect(await weights()).toBe(hashOf(large));
    expect(ranges()[1]).toBe(`bytes=${2 * PIECE_BYTES + 5}-`);
    expect(await pieces()).toEqual([]);
  });

  it("is of no use for another version of the file", async () => {
    await cancelAfter(100_000);
    const newer = noise(300_000, 2);
    hub.publish("org/tiny", bundle(newer));
    expect(await weights()).toBe(hashOf(newer));
    expect(ranges()).toEqual([undefined, undefined]);
    expect(await pieces()).toEqual([]);
  });

  it("that is damaged in the cache is refused with the whole, once", async () => {
    await cancelAfter(100_000);
    const cache = await storage.open(CACHE_NAME);
    const [piece] = await pieces();
    const { headers } = (await cache.match(piece?.url ?? "")) ?? new Response();
    await cache.put(piece?.url ?? "", new Response(noise(100_000, 3), { headers }));
    await expect(weights()).rejects.toMatchObject({ code: "MODEL_INTEGRITY" });
    expect(await pieces()).toEqual([]);
    expect(await weights()).toBe(RIGHT);
  });

  it("is used up to where it is of another version", async () => {
    await cancelAfter(100_000);
    const cache = await storage.open(CACHE_NAME);
    const [piece] = await pieces();
    const { headers } = (await cache.match(piece?.url ?? "")) ?? new Response();
    headers.set("x-memory-r1-etag", '"of another"');
    const next = piece?.url.replace("from=0&to=100000", "from=100000&to=200000") ?? "";
    await cache.put(next, new Response(noise(100_000, 3), { headers }));
    expect(await weights()).toBe(RIGHT);
    expect(ranges()[1]).toBe("bytes=100000-");
    expect(await pieces()).toEqual([]);
  });

  it("needs no request where only putting it together was left", async () => {
    await cancelAfter(299_999);
    const cache = await storage.open(CACHE_NAME);
    const [piece] = await pieces();
    const { headers } = (await cache.match(piece?.url ?? "")) ?? new Response();
    await cache.put(piece?.url.replace("299999", "300000") ?? "", new Response(WEIGHTS, { headers }));
    expect(await weights()).toBe(RIGHT);
    expect(ranges()).toHaveLength(1);
  });

  it("begins anew where the server has nothing after it", async () => {
    hub.misbehave(PATH, cutAfter(100_000), status(416));
    expect(await weights()).toBe(RIGHT);
    expect(ranges()[2]).toBeUndefined();
  });
});

describe("a browser's storage that is full", () => {
  it("does not stop the loading, and it is said", async () => {
    storage.quota = 100_000;
    expect(await weights()).toBe(RIGHT);
    expect(notes.at(-1)).toMatchObject({
      code: "QUOTA_EXCEEDED",
      text: expect.stringMatching(/storage is full: the model needs 0\.3 MB.*without being kept/),
    });
    expect(await isKept()).toBe(false);
    expect(await pieces()).toEqual([]);
    // With room it is kept again.
    storage.quota = Number.POSITIVE_INFINITY;
    notes = [];
    expect(await weights()).toBe(RIGHT);
    expect(await isKept()).toBe(true);
    expect(notes.filter(({ code }) => code !== undefined)).toEqual([]);
  });

  it("says what is left of it, where it is known", async () => {
    vi.stubGlobal("navigator", { storage: { estimate: async () => ({ quota: 100_000, usage: 40_000 }) } });
    storage.quota = 100_000;
    await weights();
    expect(notes.at(-1)?.text).toContain("needs 0.3 MB, and has 0.1 MB left");
  });

  it("has room for the whole when its pieces make way", async () => {
    storage.quota = 400_000;
    hub.misbehave(PATH, cutAfter(200_000));
    expect(await weights()).toBe(RIGHT);
    expect(await isKept()).toBe(true);
  });

  it("keeps no pieces of what cannot become whole", async () => {
    const large = noise(2 * PIECE_BYTES + 1);
    hub.publish("org/tiny", bundle(large));
    storage.quota = PIECE_BYTES + 100_000;
    expect(await weights()).toBe(hashOf(large));
    expect(notes.at(-1)?.code).toBe("QUOTA_EXCEEDED");
    expect(storage.usage()).toBeLessThan(10_000);
  });

  it("that the browser denies altogether is no failure", async () => {
    vi.stubGlobal("caches", {
      open: async () => {
        throw new DOMException("denied", "SecurityError");
      },
    });
    expect(await weights()).toBe(RIGHT);
  });
});

describe("a good server", () => {
  it("gives all that the tests stand on", async () => {
    const answer = await fetch(hub.endpoint + PATH, { headers: { Range: "bytes=299990-" } });
    expect([answer.status, answer.headers.get("content-range")]).toEqual([206, "bytes 299990-299999/300000"]);
    expect(new Uint8Array(await answer.arrayBuffer())).toEqual(WEIGHTS.subarray(299_990));
    hub.misbehave(PATH, (request, response, body) => serve(request, response, body, { etag: '"other"' }));
    const changed = await fetch(hub.endpoint + PATH, {
      headers: { Range: "bytes=1-", "If-Range": etagOf(WEIGHTS) },
    });
    expect(changed.status).toBe(200);
  });
});
