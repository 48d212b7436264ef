// Models of a caller's own in the built demo page in headless Chromium: how fast they write, and how much memory
// the module takes; and the search among many vectors. A line of JSON for each.
//   node page-models.mjs FOLDER [cpu|webgpu]     a bundle's folder, absolute; the page is built before
// A model that takes more memory than it may fails: on the CPU that is its weights as they lie on disk and 64 MiB more,
// on WebGPU its largest tensor and as much more.
import { open, readdir } from "node:fs/promises";
import { fileURLToPath, pathToFileURL } from "node:url";
import { chromium } from "@playwright/test";
import { preview } from "vite";
import { serve } from "./folder_server.mjs";
import config from "./playwright.config.mjs";

const [folder, device = "cpu"] = process.argv.slice(2);
const NEW_TOKENS = Number(process.env.NEW_TOKENS ?? 16);
const base = folder === undefined ? undefined : new URL(`${pathToFileURL(folder).href}/`);

/** How many MiB of WebAssembly memory a model may take. */
async function memoryLimit(folder, device) {
  const sizes = [];
  for (const name of (await readdir(folder)).filter((name) => name.endsWith(".safetensors"))) {
    const file = await open(new URL(name, folder));
    const { buffer } = await file.read(Buffer.alloc(8), 0, 8, 0);
    const length = Number(buffer.readBigUInt64LE());
    const header = await file.read(Buffer.alloc(length), 0, length, 8);
    await file.close();
    const { __metadata__: _, ...tensors } = JSON.parse(header.buffer.toString());
    sizes.push(...Object.values(tensors).map(({ data_offsets: [from, to] }) => to - from));
  }
  const held = device === "cpu" ? sizes.reduce((sum, size) => sum + size, 0) : Math.max(...sizes);
  return held / 2 ** 20 + 64;
}

const files = base === undefined ? undefined : await serve(base);

const www = fileURLToPath(new URL("../www/", import.meta.url));
const server = await preview({ root: www, logLevel: "error", preview: { port: 5191, open: false } });
const { launchOptions } = config.projects.find(({ name }) => name === device).use;
const browser = await chromium.launch(launchOptions);
try {
  const page = await browser.newPage();
  await page.goto(`${server.resolvedUrls.local[0]}?test&device=cpu`);
  await page.locator("body[data-ready=true]").waitFor({ state: "attached", timeout: 120_000 });
  if (files !== undefined) {
    const asked = { device, url: files.url, newTokens: NEW_TOKENS };
    const written = await page.evaluate(async ({ device, url, newTokens }) => {
      const start = performance.now();
      const memory = await window.MemoryR1.create({ device, model: url, store: "memory", __test: true });
      const loadMs = performance.now() - start;
      const info = await memory.info();
      const prompt = "Where does the sister of the one who moved to Lyon work, and since when? ".repeat(3);
      // The second time all is warm; one token more is the time of a prompt and one token.
      await memory.__measure({ what: "write", prompt, newTokens: 1 });
      const first = await memory.__measure({ what: "write", prompt, newTokens: 1 });
      const all = await memory.__measure({ what: "write", prompt, newTokens: newTokens + 1 });
      await memory.close();
      const perToken = (all.ms - first.ms) / (all.newTokens - first.newTokens);
      return {
        model: info.model.name,
        device: info.device,
        selfCheck: info.selfCheck,
        load_ms: Math.round(loadMs),
        prompt_tokens: first.promptTokens,
        prefill_tokens_per_second: (first.promptTokens * 1e3) / first.ms,
        decode_tokens_per_second: 1e3 / perToken,
        wasm_memory_mib: all.memoryBytes / 2 ** 20,
      };
    }, asked);
    written.wasm_memory_limit_mib = await memoryLimit(base, device);
    console.log(JSON.stringify(written));
    if (written.wasm_memory_mib > written.wasm_memory_limit_mib) {
      console.error("the model takes more memory than it may");
      process.exitCode = 1;
    }
  } else {
    const sizes = { memories: 100_000, width: 384, topK: 60, runs: 50 };
    const found = await page.evaluate(
      (sizes) => window.memory.__measure({ what: "search", ...sizes }),
      sizes,
    );
    const times = found.ms.toSorted((a, b) => a - b);
    const p50 = times[Math.ceil(times.length / 2) - 1];
    const bytes = (4e3 * sizes.memories * sizes.width) / p50;
    console.log(
      JSON.stringify({
        ...sizes,
        search_p50_ms: p50,
        bytes_per_second: bytes,
        copy_bytes_per_second: found.copyBytesPerSecond,
        percent_of_copy: (100 * bytes) / found.copyBytesPerSecond,
        wasm_memory_mib: found.memoryBytes / 2 ** 20,
      }),
    );
  }
} finally {
  await browser.close();
  await server.close();
  files?.close();
}
