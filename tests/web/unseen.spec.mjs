// The walk tests what nano learned, not what it was shown.
import { readFileSync } from "node:fs";
import { expect, test } from "@playwright/test";
import { memoryR1 } from "./command.mjs";
import { questions, statements } from "./walk.mjs";

test("no sentence of the walk occurs in the training data", ({}, testInfo) => {
  const config = readFileSync(new URL("../../configs/nano.toml", import.meta.url), "utf8");
  const number = (name) => {
    const found = new RegExp(`^\\s*${name}\\s*=\\s*([\\d_]+)`, "m").exec(config.split("[data]")[1] ?? "");
    if (!found) throw new Error(`configs/nano.toml names no ${name} under [data]`);
    return found[1].replaceAll("_", "");
  };
  const file = testInfo.outputPath("train.json");
  memoryR1(
    "synth",
    "--split",
    "train",
    "--seed",
    number("seed"),
    "--dialogues",
    number("dialogues"),
    "--out",
    file,
  );
  const text = readFileSync(file, "utf8").toLowerCase();
  expect(text.length).toBeGreaterThan(100_000);
  const said = [...statements, ...questions].map(([sentence]) => sentence);
  const seen = said.filter((sentence) => text.includes(JSON.stringify(sentence.toLowerCase()).slice(1, -1)));
  expect(seen).toEqual([]);
  // The grep can fail: questions of everyday life are in it.
  expect(
    questions.some(([question]) => text.includes(question.toLowerCase().replace("?", "").slice(0, 8))),
  ).toBe(true);
});
