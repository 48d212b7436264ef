import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { loadBundle } from "../src/bundle.js";

const WEIGHTS = new Uint8Array(300_000).fill(7);
const MANIFEST = JSON.stringify({
  files: {
    "config.json": { size: 2, sha256: "" },
    "model.safetensors": { size: WEIGHTS.length, sha256: "" },
  },
});
const answers: Record<string, string | Uint8Array> = {
  "/good/manifest.json": MANIFEST,
  "/good/config.json": "{}",
  "/good/model.safetensors": WEIGHTS,
  "/lacking/manifest.json": MANIFEST,
  "/lacking/config.json": "{}",
  "/page/manifest.json": "<!doctype html>",
  "/empty/manifest.json": "{}",
  "/escaping/manifest.json": JSON.stringify({ files: { "../config.json": { size: 1 } } }),
};
const server = createServer((request, response) => {
  const answer = answers[request.url ?? ""];
  if (request.url === "/slow/manifest.json") return;
  response.writeHead(answer === undefined ? 404 : 200).end(answer);
});
let base = "";
beforeAll(async () => {
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});
afterAll(() => {
  server.closeAllConnections();
  server.close();
});

const load = (url: string, signal?: AbortSignal) => loadBundle({ kind: "url", url }, () => {}, signal);

describe("a bundle", () => {
  it("comes whole, with growing progress", async () => {
    const seen: [number, number][] = [];
    const files = await loadBundle({ kind: "url", url: `${base}/good` }, (loaded, total) =>
      seen.push([loaded, total]),
    );
    expect([...files.keys()]).toEqual(["manifest.json", "config.json", "model.safetensors"]);
    expect(Buffer.from(files.get("model.safetensors") ?? []).equals(WEIGHTS)).toBe(true);
    const total = MANIFEST.length + 2 + WEIGHTS.length;
    expect(seen.at(-1)).toEqual([total, total]);
    expect(seen.every(([loaded], place) => place === 0 || loaded >= (seen[place - 1]?.[0] ?? 0))).toBe(true);
  });

  it("is taken from chosen files", async () => {
    const files = [
      { name: "manifest.json", data: new Blob([MANIFEST]) },
      { name: "config.json", data: new Blob(["{}"]) },
      { name: "model.safetensors", data: new Blob([WEIGHTS]) },
    ];
    expect((await loadBundle({ kind: "files", files }, () => {})).size).toBe(3);
    await expect(loadBundle({ kind: "files", files: files.slice(0, 2) }, () => {})).rejects.toMatchObject({
      code: "MODEL_INTEGRITY",
    });
  });

  it("that lacks a file, or whose manifest is none, is MODEL_INTEGRITY", async () => {
    for (const name of ["lacking", "page", "empty", "escaping"]) {
      await expect(load(`${base}/${name}`)).rejects.toMatchObject({ code: "MODEL_INTEGRITY" });
    }
  });

  it("that is not there is NOT_REACHABLE", async () => {
    await expect(load(`${base}/nothing`)).rejects.toMatchObject({ code: "NOT_REACHABLE" });
    await expect(load("http://127.0.0.1:1/")).rejects.toMatchObject({ code: "NOT_REACHABLE" });
    await expect(load("file:///nothing/here")).rejects.toMatchObject({ code: "NOT_REACHABLE" });
  });

  it("can be cancelled while it comes", async () => {
    const stop = new AbortController();
    const pending = load(`${base}/slow`, stop.signal);
    setTimeout(() => stop.abort(), 5);
    await expect(pending).rejects.toMatchObject({ name: "AbortError" });
  });
});
