// models.list(), models.delete(), models.clear(), and the Cache Storage that the tests stand on.
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { loadBundle } from "../src/bundle.js";
import { CACHE_NAME } from "../src/models/cache.js";
import { models } from "../src/models/kept.js";
import { readSource } from "../src/models/source.js";
import { MemoryCacheStorage } from "./cache_storage.js";
import { bundleOf, cutAfter, HubServer, noise, status, text } from "./hub_server.js";

const BUNDLE = bundleOf({ "config.json": text("{}"), "model.safetensors": noise(100_000) });
const BYTES = BUNDLE.reduce((sum, [, bytes]) => sum + bytes.length, 0);

let hub: HubServer;
let storage: MemoryCacheStorage;
beforeEach(async () => {
  hub = new HubServer();
  await hub.start();
  for (const name of ["org/one", "org/two"]) hub.publish(name, BUNDLE);
  storage = new MemoryCacheStorage();
  vi.stubGlobal("caches", storage);
});
afterEach(async () => {
  vi.unstubAllGlobals();
  await hub.stop();
});

const load = (model: string) =>
  loadBundle(readSource(model, { endpoint: hub.endpoint }), () => {}, undefined, { retryMs: 1 });
const keys = async () => (await (await storage.open(CACHE_NAME)).keys()).map(({ url }) => url);
const later = () => new Promise((resolve) => setTimeout(resolve, 5));

describe("the models that are kept", () => {
  it("are listed, the last used first", async () => {
    expect(await models.list()).toEqual([]);
    await load("org/one");
    await later();
    await load("org/two");
    await later();
    const url = `${hub.endpoint}/org/one/resolve/main/`;
    const listed = await models.list();
    expect(listed).toEqual([
      { model: "org/two", bytes: BYTES, files: 3, complete: true, lastUsed: expect.any(String) },
      { model: "org/one", bytes: BYTES, files: 3, complete: true, lastUsed: expect.any(String) },
    ]);
    expect(Math.abs(Date.parse(listed[0]?.lastUsed ?? "") - Date.now())).toBeLessThan(60_000);
    await load("org/one");
    expect((await models.list()).map(({ model }) => model)).toEqual(["org/one", "org/two"]);
    await later();
    // The same folder by its URL is the same model, under the name it was last called by.
    await load(url);
    expect((await models.list()).map(({ model }) => model)).toEqual([url, "org/two"]);
  });

  it("are listed with what has come of them", async () => {
    const weights = "/org/one/resolve/main/model.safetensors";
    hub.misbehave(weights, cutAfter(60_000), ...Array.from({ length: 5 }, () => status(500)));
    await expect(load("org/one")).rejects.toMatchObject({ code: "NOT_REACHABLE" });
    const [one] = await models.list();
    expect(one).toMatchObject({ model: "org/one", files: 1, complete: false });
    expect(one?.bytes).toBeGreaterThan(2);
    expect(one?.bytes).toBeLessThanOrEqual(60_002);
    await load("org/one");
    expect(await models.list()).toMatchObject([{ bytes: BYTES, files: 3, complete: true }]);
  });

  it("are deleted by their names, with all that has come of them", async () => {
    hub.misbehave("/org/one/resolve/main/model.safetensors", ...[cutAfter(60_000), status(403)]);
    await expect(load("org/one")).rejects.toMatchObject({ code: "NOT_REACHABLE" });
    await load("org/two");
    await load(`${hub.endpoint}/org/two/resolve/main/`);
    expect(await models.delete("org/three")).toBe(false);
    expect(await models.delete("nano")).toBe(false);
    await expect(models.delete("nothing")).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
    expect(await models.delete("org/one")).toBe(true);
    expect(await models.delete("org/one")).toBe(false);
    expect((await keys()).some((url) => url.includes("one"))).toBe(false);
    expect(await models.delete(new URL(`${hub.endpoint}/org/two/resolve/main`))).toBe(true);
    expect(await keys()).toEqual([]);
  });

  it("of which an update did not come are deleted with what came of it", async () => {
    await load("org/one");
    const update = {
      "config.json": text("[]"),
      "new.safetensors": noise(50_000),
      "newer.safetensors": noise(9),
    };
    hub.publish("org/one", bundleOf(update));
    hub.misbehave("/org/one/resolve/main/newer.safetensors", status(403));
    await expect(load("org/one")).rejects.toMatchObject({ code: "NOT_REACHABLE" });
    expect((await models.list())[0]?.bytes).toBe(BYTES + 50_000);
    expect(await models.delete("org/one")).toBe(true);
    expect(await keys()).toEqual([]);
  });

  it("that cannot be asked for are STORE_FAILED", async () => {
    const broken = async () => {
      throw new DOMException("broken", "UnknownError");
    };
    vi.stubGlobal("caches", {
      open: async () => ({ keys: broken, match: broken, put: broken }),
      delete: broken,
    });
    await expect(models.list()).rejects.toMatchObject({ code: "STORE_FAILED" });
    await expect(models.delete("org/one")).rejects.toMatchObject({ code: "STORE_FAILED" });
    await expect(models.clear()).rejects.toMatchObject({ code: "STORE_FAILED" });
    // A model comes all the same.
    expect((await load("org/one")).size).toBe(3);
  });

  it("are all cleared", async () => {
    await load("org/one");
    await models.clear();
    expect(await storage.has(CACHE_NAME)).toBe(false);
    expect(await models.list()).toEqual([]);
  });

  it("are none where there is no Cache Storage", async () => {
    vi.stubGlobal("caches", undefined);
    await load("org/one");
    expect(await models.list()).toEqual([]);
    expect(await models.delete("org/one")).toBe(false);
    await models.clear();
  });

  it("of a newer version of the package are left alone", async () => {
    const cache = await storage.open(CACHE_NAME);
    const strange = ["{}", "null", "no", '{"model":"a/b","base":"x","lastUsed":"","files":[null]}'];
    for (const [place, record] of strange.entries()) {
      await cache.put(`https://memory-r1.invalid/record/${place}`, new Response(record));
    }
    await load("org/one");
    expect((await models.list()).map(({ model }) => model)).toEqual(["org/one"]);
    expect(await keys()).toHaveLength(8);
  });
});

describe("Cache Storage in the tests", () => {
  it("keeps, finds, lists and deletes as a browser's", async () => {
    const cache = await storage.open("x");
    await cache.put("https://a.example/?n=1#hash", new Response("one", { headers: { "x-a": "b" } }));
    await cache.put("https://a.example/?n=2", new Response("two"));
    expect(await cache.match("https://a.example/")).toBeUndefined();
    expect(await (await cache.match("https://a.example/?n=1"))?.text()).toBe("one");
    expect((await cache.match("https://a.example/?n=1"))?.headers.get("x-a")).toBe("b");
    expect(await cache.matchAll("https://a.example/", { ignoreSearch: true })).toHaveLength(2);
    expect(await (await storage.match("https://a.example/?n=2"))?.text()).toBe("two");
    expect(await cache.delete("https://a.example/", { ignoreSearch: true })).toBe(true);
    expect(await cache.keys()).toEqual([]);
    expect(await storage.keys()).toEqual(["x"]);
  });

  it("refuses what a browser's refuses", async () => {
    const cache = await new MemoryCacheStorage(3).open("x");
    const put = (url: string, response: Response) => cache.put(url, response);
    await expect(put("data:,x", new Response(""))).rejects.toBeInstanceOf(TypeError);
    await expect(put("https://a.example/", new Response("", { status: 206 }))).rejects.toBeInstanceOf(
      TypeError,
    );
    await put("https://a.example/", new Response("old"));
    await expect(put("https://a.example/", new Response("newer"))).rejects.toMatchObject({
      name: "QuotaExceededError",
    });
    expect(await (await cache.match("https://a.example/"))?.text()).toBe("old");
  });
});
