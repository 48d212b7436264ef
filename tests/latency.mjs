// Latencies of nano on this machine, through the npm package on Node's CPU, as a line of JSON.
import { MemoryR1 } from "memory-r1";

const started = performance.now();
const memory = await MemoryR1.create({ seed: 0, store: "memory" });
const loaded = performance.now() - started;
const scope = { userId: "bench" };

async function timed(task) {
  const start = performance.now();
  await task();
  return performance.now() - start;
}
const median = (values) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];

const adds = [];
for (const text of [
  "I live in Ghent and I work as a florist.",
  "Oh, and I have a dog named Pickle.",
  "My favorite food is risotto, no question.",
  "I play the banjo, to my neighbours' horror.",
  "Big news, I moved to Oslo!",
  "I'm not a florist anymore, I work as a baker now.",
]) {
  adds.push(await timed(() => memory.add(text, scope)));
}
const answers = [];
for (const text of ["Where do I live?", "What is my dog's name?", "What is my favorite food?"]) {
  answers.push(await timed(() => memory.answer(text, scope)));
}
const searches = [];
for (let i = 0; i < 50; i++)
  searches.push(await timed(() => memory.search("dog", { filters: scope, topK: 5 })));

const { device, model } = await memory.info();
await memory.close();
console.log(
  JSON.stringify({
    device,
    model: model.name,
    load_ms: Math.round(loaded),
    add_median_ms: Math.round(median(adds)),
    answer_median_ms: Math.round(median(answers)),
    search_median_ms: Number(median(searches).toFixed(2)),
  }),
);
