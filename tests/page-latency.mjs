// Latencies of nano in the built demo page, on the CPU backend in headless Chromium: one `add` of one
// fact and one `answer`, warm, with the worker and IndexedDB as a user has them.
import { cpus } from "node:os";
import { fileURLToPath } from "node:url";
import { chromium } from "@playwright/test";
import { preview } from "vite";
import config from "./playwright.config.mjs";

const WARM_UP = 4;
const ROUNDS = 36;
const scope = { userId: "bench" };

// One fact each; from the second time on, most change what is known.
const values = {
  "I live in %.": ["Ghent", "Oslo", "Lima", "Turin", "Cork", "Perth", "Quito", "Malmo"],
  "I work as a %.": ["florist", "baker", "nurse", "welder", "tailor", "pilot", "cook", "plumber"],
  "I have a dog named %.": ["Pickle", "Rex", "Miso", "Tao", "Biscuit", "Juno", "Otto", "Pepper"],
  "My favorite food is %.": ["risotto", "tacos", "ramen", "pho", "paella", "curry", "pizza", "sushi"],
  "I play the %.": ["banjo", "cello", "flute", "harp", "drums", "oboe", "viola", "tuba"],
};
const questions = [
  "Where do I live?",
  "What do I do for work?",
  "What is my dog's name?",
  "What is my favorite food?",
  "Which instrument do I play?",
];
const kinds = Object.entries(values);
const rounds = Array.from({ length: WARM_UP + ROUNDS }, (_, round) => {
  const [sentence, list] = kinds[round % kinds.length];
  const value = list[Math.floor(round / kinds.length)];
  return { text: sentence.replace("%", value), question: questions[(round + 2) % questions.length] };
});

const www = fileURLToPath(new URL("../www/", import.meta.url));
const server = await preview({ root: www, logLevel: "error", preview: { port: 5190, open: false } });
const { launchOptions } = config.projects.find(({ name }) => name === "cpu").use;
const browser = await chromium.launch(launchOptions);
let measured;
try {
  const page = await browser.newPage();
  await page.goto(`${server.resolvedUrls.local[0]}?test&device=cpu`);
  await page.locator("body[data-ready=true]").waitFor({ state: "attached", timeout: 120_000 });
  measured = await page.evaluate(
    async ({ rounds, scope }) => {
      const memory = window.memory;
      const timed = async (task) => {
        const start = performance.now();
        const value = await task();
        return { value, time: performance.now() - start };
      };
      const info = await memory.info();
      // A bank from which every prompt is filled with as many memories as it may show.
      for (let number = 1; number <= info.model.candidatesPerSpeaker; number++)
        await memory.add(`Owns a painting with the number ${number}`, { ...scope, infer: false });
      const done = [];
      for (const { text, question } of rounds) {
        const add = await timed(() => memory.add(text, scope));
        const answer = await timed(() => memory.answer(question, scope));
        done.push({ add: add.time, facts: add.value.results.length, answer: answer.time });
      }
      return { done, info };
    },
    { rounds, scope },
  );
} finally {
  await browser.close();
  await server.close();
}

/** The least value that the share `part` of all values is not above. */
function quantile(values, part) {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.ceil(part * sorted.length) - 1];
}

const { done, info } = measured;
const warm = done.slice(WARM_UP);
const series = [
  // A sentence that gave no fact, or two, is another measure.
  ["add of one fact", warm.filter(({ facts }) => facts === 1).map(({ add }) => add)],
  ["answer", warm.map(({ answer }) => answer)],
];
console.log(
  `${info.model.name} ${info.model.fingerprint.slice(0, 12)} on ${info.device}, ` +
    `Chromium ${browser.version()}, ${cpus().length} cores`,
);
const row = (name, n, p50, p95) =>
  console.log(`${name.padEnd(16)}${n.padStart(6)}${p50.padStart(9)}${p95.padStart(9)}`);
row("", "n", "p50 ms", "p95 ms");
for (const [name, times] of series) {
  if (times.length < 20) {
    console.error(`only ${times.length} measures of “${name}”: 20 are needed`);
    process.exitCode = 1;
  }
  row(
    name,
    String(times.length),
    ...[0.5, 0.95].map((part) => (times.length > 0 ? quantile(times, part).toFixed(0) : "-")),
  );
}
