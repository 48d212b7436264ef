// The real all-MiniLM-L6-v2 in the browser against Sentence Transformers. `./build.sh encoder` fetches it.
import { existsSync, readFileSync } from "node:fs";
import { expect, test } from "@playwright/test";
import { serve } from "../folder_server.mjs";
import { open } from "./page.mjs";

const folder = new URL("../../runs/all-MiniLM-L6-v2/", import.meta.url);
const fixtures = new URL("../../crate/tests/fixtures/encoders/", import.meta.url);
const WIDTH = 384;

test("50 sentences have the vectors of Sentence Transformers", async ({ page }) => {
  expect(existsSync(folder), "./build.sh encoder fetches the encoder").toBe(true);
  const texts = JSON.parse(readFileSync(new URL("sentences.json", fixtures), "utf8"));
  const bytes = readFileSync(new URL("minilm/embeddings.f32", fixtures));
  const wanted = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
  expect(texts.length).toBeGreaterThanOrEqual(50);
  expect(wanted.length).toBe(texts.length * WIDTH);
  const server = await serve(folder);
  try {
    await open(page, "device=cpu");
    const { vectors } = await page.evaluate(
      async ({ embedder, texts }) => {
        const options = { device: "cpu", store: "memory", embedder, __test: true };
        const memory = await window.MemoryR1.create(options);
        const measured = await memory.__measure({ what: "embed", texts });
        await memory.close();
        return measured;
      },
      { embedder: server.url, texts },
    );
    const cosines = vectors.map((own, place) => {
      const other = wanted.subarray(place * WIDTH, (place + 1) * WIDTH);
      const product = (a, b) => a.reduce((sum, value, i) => sum + value * b[i], 0);
      return product(own, other) / Math.sqrt(product(own, own) * product(other, other));
    });
    expect(cosines).toHaveLength(texts.length);
    expect(Math.min(...cosines)).toBeGreaterThan(0.9999);
  } finally {
    server.close();
  }
});
