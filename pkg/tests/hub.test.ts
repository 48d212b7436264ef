// Models of a hub, as bundles and as plain folders: which files they have, and what is kept of them.
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { loadBundle, loadEncoder } from "../src/bundle.js";
import { CACHE_NAME } from "../src/models/cache.js";
import { models } from "../src/models/kept.js";
import type { Note } from "../src/models/progress.js";
import { readEncoderSource, readSource } from "../src/models/source.js";
import { MemoryCacheStorage } from "./cache_storage.js";
import { bundleOf, cutAfter, etagOf, HubServer, hashOf, instead, noise, status, text } from "./hub_server.js";

const WEIGHTS = noise(100_000);
const BUNDLE = { "config.json": text("{}"), "tokenizer.json": text("[]"), "model.safetensors": WEIGHTS };
const PLAIN = {
  "config.json": text('{"model_type":"qwen2"}'),
  "tokenizer.json": text("{}"),
  "tokenizer_config.json": text('{"eos_token":"<|end|>"}'),
  "model.safetensors": WEIGHTS,
};
const OPTIONAL = { "generation_config.json": text("{}"), "chat_template.jinja": text("{{ messages }}") };

let hub: HubServer;
let storage: MemoryCacheStorage;
let notes: Note[];
beforeEach(async () => {
  hub = new HubServer();
  await hub.start();
  storage = new MemoryCacheStorage();
  vi.stubGlobal("caches", storage);
  notes = [];
});
afterEach(async () => {
  vi.unstubAllGlobals();
  await hub.stop();
});

/** The hashes of a model's files by their names. */
async function load(model = "org/tiny", token?: string): Promise<Record<string, string>> {
  const source = readSource(model, { endpoint: hub.endpoint, token });
  const onBytes = (_loaded: number, _total: number, note?: Note) => {
    if (note !== undefined) notes.push(note);
  };
  const files = await loadBundle(source, onBytes, undefined, { retryMs: 1 });
  return Object.fromEntries([...files].map(([name, bytes]) => [name, hashOf(bytes)]));
}
const hashes = (files: Iterable<[string, Uint8Array]>) =>
  Object.fromEntries([...files].map(([name, bytes]) => [name, hashOf(bytes)]));
const path = (name: string) => `/org/tiny/resolve/main/${name}`;
/** What is asked for from now on. */
const asked = () =>
  hub.asked.splice(0).map((one) => `${one.method} ${one.path.replace("/org/tiny/resolve/main/", "")}`);
const kept = async () => {
  const keys = await (await storage.open(CACHE_NAME)).keys();
  return keys.flatMap(({ url }) => (url.startsWith(hub.endpoint) ? new URL(url).pathname : []));
};

describe("a bundle of the hub", () => {
  it("comes by its manifest, and then only the manifest is asked for", async () => {
    const bundle = bundleOf({ ...BUNDLE, LICENSE: text("MIT") });
    hub.publish("org/tiny", bundle);
    const read = hashes(bundle.filter(([name]) => name !== "LICENSE"));
    expect(await load()).toEqual(read);
    expect(asked()).toEqual([
      "GET manifest.json",
      "GET config.json",
      "GET tokenizer.json",
      "GET model.safetensors",
    ]);
    expect((await kept()).sort()).toEqual(Object.keys(read).map(path).sort());
    expect(await load()).toEqual(read);
    expect(asked()).toEqual(["GET manifest.json"]);
    expect(notes.map((note) => note.text)).toContain("Reading the model that this browser keeps");
  });

  it("is used without a network once it is whole", async () => {
    const bundle = bundleOf(BUNDLE);
    hub.publish("org/tiny", bundle);
    await load();
    await hub.stop();
    expect(await load()).toEqual(hashes(bundle));
    await hub.start();
  });

  it("is used where the hub is broken or says nothing", async () => {
    const bundle = bundleOf(BUNDLE);
    hub.publish("org/tiny", bundle);
    await load();
    hub.misbehave(path("manifest.json"), status(503), cutAfter(10));
    expect(await load()).toEqual(hashes(bundle));
    expect(await load()).toEqual(hashes(bundle));
    expect(hub.askedFor("manifest.json")).toHaveLength(3);
  });

  it("of which something is missing is not used without a network", async () => {
    hub.publish("org/tiny", bundleOf(BUNDLE));
    await load();
    await (await storage.open(CACHE_NAME)).delete(hub.endpoint + path("tokenizer.json"));
    await hub.stop();
    await expect(load()).rejects.toMatchObject({ code: "NOT_REACHABLE" });
    await hub.start();
  });

  it("that is replaced comes anew, but for what stayed the same", async () => {
    hub.publish("org/tiny", bundleOf({ ...BUNDLE, "lexicon.txt": text("old") }));
    await load();
    asked();
    const newer = bundleOf({ ...BUNDLE, "model.safetensors": noise(90_000, 2) });
    hub.publish("org/tiny", newer);
    expect(await load()).toEqual(hashes(newer));
    expect(asked()).toEqual(["GET manifest.json", "GET model.safetensors"]);
    expect(await kept()).not.toContain(path("lexicon.txt"));
    await load();
    expect(asked()).toEqual(["GET manifest.json"]);
  });

  it("stays the old one without a network as long as the new one has not come", async () => {
    const old = bundleOf(BUNDLE);
    hub.publish("org/tiny", old);
    await load();
    hub.publish("org/tiny", bundleOf({ ...BUNDLE, "model.safetensors": noise(90_000, 2) }));
    hub.misbehave(path("model.safetensors"), ...Array.from({ length: 5 }, () => status(500)));
    await expect(load()).rejects.toMatchObject({ code: "NOT_REACHABLE" });
    await hub.stop();
    expect(await load()).toEqual(hashes(old));
    await hub.start();
  });

  it("that is damaged in the cache is refused once, and then comes again", async () => {
    const bundle = bundleOf(BUNDLE);
    hub.publish("org/tiny", bundle);
    await load();
    const cache = await storage.open(CACHE_NAME);
    const url = hub.endpoint + path("model.safetensors");
    const { headers } = (await cache.match(url)) ?? new Response();
    await cache.put(url, new Response(noise(100_000, 3), { headers }));
    await expect(load()).rejects.toMatchObject({
      code: "MODEL_INTEGRITY",
      message: expect.stringMatching(/model\.safetensors was damaged.*get the bundle again/),
    });
    expect(await kept()).not.toContain(path("model.safetensors"));
    expect(await load()).toEqual(hashes(bundle));
  });

  it("whose manifest is none, or lists what is not there, is MODEL_INTEGRITY", async () => {
    hub.publish("org/tiny", [["manifest.json", text("<!doctype html>")]]);
    await expect(load()).rejects.toMatchObject({ code: "MODEL_INTEGRITY" });
    hub.publish("org/tiny", bundleOf(BUNDLE).slice(0, 2));
    await expect(load()).rejects.toMatchObject({
      code: "MODEL_INTEGRITY",
      message: expect.stringContaining("tokenizer.json is missing"),
    });
  });

  it("of a revision comes from there, and of a commit is never asked about again", async () => {
    const bundle = bundleOf(BUNDLE);
    const commit = "0123456789abcdef0123456789abcdef01234567";
    hub.publish("org/tiny", bundle, encodeURIComponent("refs/pr/1"));
    hub.publish("org/tiny", bundle, commit);
    expect(await load("org/tiny@refs/pr/1")).toEqual(hashes(bundle));
    expect(await load(`org/tiny@${commit}`)).toEqual(hashes(bundle));
    hub.asked.splice(0);
    expect(await load(`org/tiny@${commit}`)).toEqual(hashes(bundle));
    expect(hub.asked).toEqual([]);
  });

  it("is asked for with the token, which is stored nowhere", async () => {
    hub.publish("org/tiny", bundleOf(BUNDLE));
    await load("org/tiny", "hf_secret");
    expect(new Set(hub.asked.map((one) => one.authorization))).toEqual(new Set(["Bearer hf_secret"]));
    const cache = await storage.open(CACHE_NAME);
    for (const { url } of await cache.keys()) {
      const response = (await cache.match(url)) ?? new Response();
      const all = [url, JSON.stringify([...response.headers]), await response.text()].join();
      expect(all.includes("hf_secret")).toBe(false);
    }
  });

  it("of a web server that is no hub comes and is kept in the same way", async () => {
    const bundle = bundleOf(BUNDLE);
    hub.publish("org/tiny", bundle);
    const url = `${hub.endpoint}/org/tiny/resolve/main`;
    expect(await load(url)).toEqual(hashes(bundle));
    asked();
    expect(await load(`${url}/?v=1`)).toEqual(hashes(bundle));
    expect(asked()).toEqual(["GET manifest.json"]);
    hub.files.delete(path("manifest.json"));
    await expect(load(url)).rejects.toMatchObject({ code: "NOT_REACHABLE" });
  });

  it("that is nowhere is NOT_REACHABLE", async () => {
    hub.misbehave(path("manifest.json"), status(404, { "x-error-code": "RepoNotFound" }));
    await expect(load()).rejects.toMatchObject({
      code: "NOT_REACHABLE",
      message: expect.stringContaining("there is no such model or revision"),
    });
  });
});

describe("a plain folder of the hub", () => {
  const linked = (bytes: Uint8Array) => ({
    "x-linked-etag": `"${hashOf(bytes)}"`,
    "x-linked-size": String(bytes.length),
  });

  it("comes without a manifest, with what is optional or without", async () => {
    hub.publish("org/tiny", Object.entries(PLAIN));
    expect(await load()).toEqual(hashes(Object.entries(PLAIN)));
    await storage.delete(CACHE_NAME);
    hub.publish("org/tiny", Object.entries(OPTIONAL));
    expect(await load()).toEqual(hashes(Object.entries({ ...PLAIN, ...OPTIONAL })));
  });

  it("is looked through again, and comes from the cache", async () => {
    hub.publish("org/tiny", Object.entries(PLAIN));
    await load();
    hub.asked.splice(0);
    expect(await load()).toEqual(hashes(Object.entries(PLAIN)));
    expect(asked().filter((one) => one.startsWith("GET"))).toEqual(["GET manifest.json"]);
    const newer = { ...PLAIN, "config.json": text('{"model_type":"qwen3"}') };
    hub.publish("org/tiny", Object.entries(newer));
    expect(await load()).toEqual(hashes(Object.entries(newer)));
    expect(asked().filter((one) => one.startsWith("GET"))).toEqual(["GET manifest.json", "GET config.json"]);
  });

  it("is used without a network once it is whole", async () => {
    hub.publish("org/tiny", Object.entries(PLAIN));
    await load();
    await hub.stop();
    expect(await load()).toEqual(hashes(Object.entries(PLAIN)));
    await hub.start();
  });

  it("may have its weights in shards", async () => {
    const { "model.safetensors": _, ...rest } = PLAIN;
    const names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"] as const;
    const map = { a: names[0], b: names[1], c: names[0] };
    const sharded = {
      ...rest,
      "model.safetensors.index.json": text(JSON.stringify({ weight_map: map })),
      [names[0]]: noise(50_000, 4),
      [names[1]]: noise(60_000, 5),
    };
    hub.publish("org/tiny", Object.entries(sharded));
    expect(await load()).toEqual(hashes(Object.entries(sharded)));
    expect(await load()).toEqual(hashes(Object.entries(sharded)));
    await hub.stop();
    expect(await load()).toEqual(hashes(Object.entries(sharded)));
    await hub.start();
    hub.files.delete(path(names[1]));
    await expect(load()).rejects.toMatchObject({
      code: "MODEL_INTEGRITY",
      message: expect.stringContaining(names[1]),
    });
    for (const index of ["{}", '{"weight_map":{}}', '{"weight_map":{"a":"../x.safetensors"}}', "no"]) {
      hub.files.set(path("model.safetensors.index.json"), text(index));
      await expect(load()).rejects.toMatchObject({ code: "MODEL_INTEGRITY" });
    }
  });

  it("that lacks what is needed is refused by the name of that", async () => {
    for (const name of Object.keys(PLAIN)) {
      hub.files.clear();
      hub.publish("org/tiny", Object.entries(PLAIN));
      hub.files.delete(path(name));
      await expect(load()).rejects.toMatchObject({
        code: "MODEL_INTEGRITY",
        message: expect.stringContaining(`${name}`),
      });
    }
  });

  it("is checked by the hash that the hub knows", async () => {
    hub.publish("org/tiny", Object.entries(PLAIN));
    hub.headers.set(path("model.safetensors"), linked(WEIGHTS));
    expect(await load()).toEqual(hashes(Object.entries(PLAIN)));
    await storage.delete(CACHE_NAME);
    hub.misbehave(path("model.safetensors"), instead(noise(100_000, 6)));
    await expect(load()).rejects.toMatchObject({
      code: "MODEL_INTEGRITY",
      message: expect.stringContaining("model.safetensors is damaged"),
    });
    hub.headers.set(path("model.safetensors"), { ...linked(WEIGHTS), "x-linked-size": "99999" });
    await expect(load()).rejects.toMatchObject({ code: "MODEL_INTEGRITY" });
  });

  it("whose weights lie elsewhere is checked by the hub's pointer", async () => {
    // As the hub does: a redirect, which alone has the headers, and which nobody sees.
    const { "model.safetensors": _, ...rest } = PLAIN;
    hub.publish("org/tiny", Object.entries(rest));
    hub.redirect(path("model.safetensors"), "/elsewhere/1", linked(WEIGHTS));
    hub.files.set("/elsewhere/1", WEIGHTS);
    const pointer = `version https://git-lfs.github.com/spec/v1\noid sha256:${hashOf(WEIGHTS)}\nsize 100000\n`;
    hub.files.set("/org/tiny/raw/main/model.safetensors", text(pointer));
    hub.misbehave("/elsewhere/1", cutAfter(50_000));
    expect(await load()).toEqual(hashes(Object.entries(PLAIN)));
    expect(hub.askedFor("/elsewhere/1").map(({ ifRange }) => ifRange)).toEqual([undefined, etagOf(WEIGHTS)]);
    hub.asked.splice(0);
    expect(await load()).toEqual(hashes(Object.entries(PLAIN)));
    expect(hub.askedFor("/elsewhere/1")).toEqual([]);
    await storage.delete(CACHE_NAME);
    hub.files.set("/elsewhere/1", noise(100_000, 6));
    await expect(load()).rejects.toMatchObject({ code: "MODEL_INTEGRITY" });
  });

  it("of a server that does not know HEAD comes all the same", async () => {
    hub.publish("org/tiny", Object.entries(PLAIN));
    hub.knowsHead = false;
    expect(await load()).toEqual(hashes(Object.entries(PLAIN)));
  });

  it("is asked for again where a browser takes a short answer for a whole one", async () => {
    hub.publish("org/tiny", Object.entries(PLAIN));
    const honest = fetch;
    const short = new Set(["tokenizer.json"]);
    vi.stubGlobal("fetch", async (url: URL, init?: RequestInit) => {
      const response = await honest(url, init);
      if (init?.method === "HEAD" || !short.delete(url.pathname.split("/").at(-1) ?? "")) return response;
      return new Response((await response.text()).slice(0, 1), response);
    });
    expect(await load()).toEqual(hashes(Object.entries(PLAIN)));
    expect(hub.askedFor("tokenizer.json").map(({ range }) => range)).toEqual([undefined, "bytes=1-"]);
    hub.publish("org/tiny", bundleOf(BUNDLE));
    await storage.delete(CACHE_NAME);
    hub.asked.splice(0);
    short.add("manifest.json");
    expect(await load()).toEqual(hashes(bundleOf(BUNDLE)));
    expect(hub.askedFor("manifest.json")).toHaveLength(2);
  });

  it("goes on after a cut, also where only the answer says how long a file is", async () => {
    hub.publish("org/tiny", Object.entries({ ...PLAIN, "tokenizer.json": noise(50_000, 7) }));
    hub.misbehave(path("tokenizer.json"), cutAfter(20_000));
    expect((await load())["tokenizer.json"]).toBe(hashOf(noise(50_000, 7)));
    expect(hub.askedFor("tokenizer.json").at(-1)?.range).toMatch(/^bytes=\d+-$/);
    // All of it came, but the connection broke before its end was clear.
    await storage.delete(CACHE_NAME);
    hub.misbehave(path("tokenizer.json"), (_request, response, body) => {
      response.writeHead(200, { etag: etagOf(body), "transfer-encoding": "chunked" });
      response.write(body, () => setTimeout(() => response.socket?.destroy(), 50));
    });
    expect((await load())["tokenizer.json"]).toBe(hashOf(noise(50_000, 7)));
  });
});

describe("a sentence encoder", () => {
  const ENCODER = {
    "config.json": text('{"model_type":"bert"}'),
    "tokenizer.json": text("{}"),
    "sentence_bert_config.json": text('{"max_seq_length":256}'),
    "1_Pooling/config.json": text('{"pooling_mode_mean_tokens":true}'),
    "model.safetensors": WEIGHTS,
  };
  const loadFrom = async (source: string) => {
    const files = await loadEncoder(
      readEncoderSource(source, { endpoint: hub.endpoint }),
      () => {},
      undefined,
      {
        retryMs: 1,
      },
    );
    return hashes(files);
  };

  it("comes from the hub or from any folder, without a manifest, and is kept whole", async () => {
    hub.publish("org/tiny", Object.entries(ENCODER));
    hub.publish("org/tiny", [["README.md", text("# none of it")]]);
    for (const source of ["org/tiny", `${hub.endpoint}/org/tiny/resolve/main`]) {
      expect(await loadFrom(source)).toEqual(hashes(Object.entries(ENCODER)));
      expect(hub.askedFor("manifest.json")).toEqual([]);
      expect((await kept()).sort()).toEqual(Object.keys(ENCODER).map(path).sort());
      hub.asked.splice(0);
      expect(await loadFrom(source)).toEqual(hashes(Object.entries(ENCODER)));
      expect(hub.asked.every(({ method }) => method === "HEAD")).toBe(true);
      await hub.stop();
      expect(await loadFrom(source)).toEqual(hashes(Object.entries(ENCODER)));
      await hub.start();
      const [own] = await models.list();
      const bytes = Object.values(ENCODER).reduce((sum, file) => sum + file.length, 0);
      expect(own).toMatchObject({ bytes, files: 5, complete: true });
      expect(await models.delete(own?.model ?? "")).toBe(true);
      expect(await kept()).toEqual([]);
    }
  });

  it("needs neither its settings nor its pooling, and is refused without its weights", async () => {
    const { "sentence_bert_config.json": _, "1_Pooling/config.json": __, ...plain } = ENCODER;
    hub.publish("org/tiny", Object.entries(plain));
    expect(await loadFrom("org/tiny")).toEqual(hashes(Object.entries(plain)));
    hub.files.delete(path("tokenizer.json"));
    await expect(loadFrom("org/tiny")).rejects.toMatchObject({ code: "MODEL_INTEGRITY" });
    await expect(loadFrom(`${hub.endpoint}/nothing`)).rejects.toMatchObject({ code: "MODEL_INTEGRITY" });
  });
});
