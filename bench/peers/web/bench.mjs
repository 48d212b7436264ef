// memory-r1 beside transformers.js (ONNX Runtime's WebAssembly and WebGPU) and wllama (llama.cpp's WebAssembly) in one
// headless Chromium: the same weights in 32 bits, prompt and number of tokens, greedy, runs taken in turn.
//   ./build.sh wasm && ./build.sh native               # pkg/dist and pkg/wasm; the command line for export.py
//   (cd bench/peers/web && npm ci)
//   target/peers/venv/bin/python bench/peers/web/export.py runs/web-nano      # see there
//   node bench/peers/web/bench.mjs runs/web-nano [rounds] [cpu|threads|webgpu …]
//
// Prints a line for each device, peer and measure, the medians of both and the ratios' median, least and greatest; and
// whether each engine wrote what transformers writes in Python. On `cpu` every engine has one thread, as memory-r1 has
// everywhere; on `threads` the page is cross-origin isolated and the peers have one for every core. `webgpu` is
// Chromium's software adapter.
import { readFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { relative } from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "@playwright/test";
import { preview } from "vite";
import config from "../../../tests/playwright.config.mjs";

const DEVICES = {
  cpu: { newTokens: 88, peers: ["transformers.js", "wllama"], threads: 1 },
  threads: { newTokens: 88, peers: ["transformers.js", "wllama"], threads: availableParallelism() },
  webgpu: { newTokens: 8, peers: ["transformers.js", "transformers.js, no subgroups"], threads: 1 },
};
const ISOLATED = {
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-embedder-policy": "require-corp",
};
const OWN = "memory-r1";
const MEASURES = ["prefill", "decode"];

const [folder, rounds = "3", ...asked] = process.argv.slice(2);
const expected = JSON.parse(readFileSync(`${folder}/expected.json`, "utf8"));
const root = fileURLToPath(new URL("../../../", import.meta.url));

for (const name of asked.length > 0 ? asked : Object.keys(DEVICES)) await compare(name, DEVICES[name]);

async function compare(name, { newTokens, peers, threads }) {
  const headers = threads > 1 ? ISOLATED : {};
  const server = await preview({
    root,
    configFile: false,
    logLevel: "error",
    build: { outDir: "." },
    preview: { port: 5192, open: false, headers },
  });
  const device = name === "webgpu" ? name : "cpu";
  const browser = await chromium.launch(
    config.projects.find((project) => project.name === device).use.launchOptions,
  );
  try {
    const address = server.resolvedUrls.local[0];
    const asked = { device, threads, expected, folder: `${address}${relative(root, folder)}/` };
    const pages = new Map();
    for (const engine of [OWN, ...peers]) {
      pages.set(engine, await open(browser, `${address}bench/peers/web/index.html`, engine, asked));
      await speed(pages.get(engine), newTokens);
    }
    const runs = [];
    for (let round = 0; round < Number(rounds); round++) {
      const run = {};
      for (const [engine, page] of pages) run[engine] = await speed(page, newTokens);
      runs.push(run);
    }
    print(name, peers, runs);
  } finally {
    await browser.close();
    await server.close();
  }
}

/** A page of its own with an engine, its model loaded. */
async function open(browser, address, engine, asked) {
  const page = await browser.newPage();
  await page.goto(address);
  await page.waitForFunction(() => "engines" in window);
  await page.evaluate(
    async ([engine, asked]) => {
      window.write = await window.engines[engine](asked);
    },
    [engine, asked],
  );
  return page;
}

/** Tokens a second of the prompt with the first token, and of those behind it; and whether they are the right ones. */
async function speed(page, newTokens) {
  const [first, all] = await page.evaluate(
    async (counts) => {
      const runs = [];
      for (const count of counts) {
        const start = performance.now();
        const wrote = await window.write(count);
        runs.push({ ...wrote, ms: performance.now() - start });
      }
      return runs;
    },
    [1, newTokens + 1],
  );
  if (first.read !== expected.prompt_ids.length || all.wrote !== newTokens + 1)
    throw new Error(`read ${first.read} tokens and wrote ${all.wrote}`);
  const prefill = (1e3 * first.read) / first.ms;
  const decode = (1e3 * (all.wrote - first.wrote)) / (all.ms - first.ms);
  return { prefill, decode, right: isRight(all) };
}

/** Whether an engine wrote what it should, as far as that is sure; undefined where it does not say what it wrote. */
function isRight({ ids, text }) {
  if (ids !== undefined)
    return ids.slice(0, expected.ids.length).every((id, place) => id === expected.ids[place]);
  return text && (expected.text.startsWith(text) || text.startsWith(expected.text));
}

function print(device, peers, runs) {
  for (const peer of peers)
    for (const measure of MEASURES) {
      const [own, other] = [OWN, peer].map((engine) => runs.map((run) => run[engine][measure]));
      const ratios = own.map((value, place) => value / other[place]);
      const [least, greatest] = [Math.min(...ratios), Math.max(...ratios)].map((ratio) => ratio.toFixed(2));
      console.log(
        `${device.padEnd(7)} ${measure.padEnd(7)} tokens/s  ${OWN} ${median(own).toFixed(1).padStart(7)}` +
          `  ${peer} ${median(other).toFixed(1).padStart(7)}` +
          `  ratio ${median(ratios).toFixed(2)} (${least} to ${greatest})`,
      );
    }
  for (const engine of [OWN, ...peers]) {
    const right = new Set(runs.map((run) => run[engine].right));
    const said = right.has(false) ? "no" : right.has(true) ? "yes" : "it does not say";
    console.log(`${device.padEnd(7)} ${engine} writes transformers' tokens: ${said}`);
  }
}

function median(values) {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}
