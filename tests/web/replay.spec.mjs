// The page and the command line are one engine: the same conversation makes the same journal.
import { readFileSync, writeFileSync } from "node:fs";
import { expect, test } from "@playwright/test";
import { memoryR1 } from "./command.mjs";
import { open } from "./page.mjs";

/** An export without what may differ: ids, times of appending, fingerprints. */
function comparable(text) {
  const journals = new Map();
  for (const line of text.trim().split("\n")) {
    const entry = JSON.parse(line);
    if (entry.seq === undefined) continue;
    const strip = (memory) =>
      memory && {
        text: memory.text,
        speaker: memory.speaker,
        observed: memory.observed,
        metadata: memory.metadata,
      };
    const events = journals.get(entry.journal) ?? [];
    const ids = new Map(events.filter((event) => event.op === "ADD").map((event) => [event.id, event.seq]));
    if (entry.op === "ADD") ids.set(entry.id, entry.seq);
    events.push({
      seq: entry.seq,
      batch: entry.batch,
      cause: entry.cause,
      op: entry.op,
      id: entry.id,
      place: ids.get(entry.id),
      before: strip(entry.before),
      after: strip(entry.after),
      turn: entry.receipt?.turn,
      fact: entry.receipt?.fact,
      shown: entry.receipt?.shown.map((id) => ids.get(id)),
      probability: entry.receipt?.probability,
      idProbability: entry.receipt?.id_probability,
    });
    journals.set(entry.journal, events);
  }
  const list = [...journals.values()].map((events) => events.map(({ id, ...event }) => event));
  return list.sort((a, b) => a[0].turn.speaker.localeCompare(b[0].turn.speaker));
}

test("a conversation replayed in the page gives the command line's journal, event for event", async ({
  page,
}, testInfo) => {
  test.setTimeout(900_000);
  let file = process.env.MEMORY_R1_REPLAY;
  const index = Number(process.env.MEMORY_R1_REPLAY_CONVERSATION ?? 0);
  if (!file) {
    // A generated twin of the released conversations: the first sessions of a synthetic one.
    file = testInfo.outputPath("conversation.json");
    memoryR1("synth", "--split", "test", "--seed", "11", "--dialogues", "1", "--out", file);
    const [sample] = JSON.parse(readFileSync(file, "utf8"));
    for (let number = 4; sample.conversation[`session_${number}_date_time`]; number++) {
      delete sample.conversation[`session_${number}_date_time`];
      delete sample.conversation[`session_${number}`];
    }
    writeFileSync(
      file,
      JSON.stringify([{ sample_id: sample.sample_id, conversation: sample.conversation, qa: [] }]),
    );
  }
  const journal = testInfo.outputPath("journal.jsonl");
  memoryR1(
    "eval",
    "locomo",
    "--data",
    file,
    "--conversation",
    JSON.parse(readFileSync(file, "utf8"))[index].sample_id,
    "--split",
    "all",
    "--journal",
    journal,
    "--out",
    testInfo.outputPath("eval"),
  );

  await open(page, `conversation=${index}`);
  await page.locator("#replay-file").setInputFiles(file);
  await expect(page.getByText(/is in the memory now/)).toBeVisible({ timeout: 800_000 });
  const exported = await page.evaluate(() => window.memory.export());

  const [native, web] = [comparable(readFileSync(journal, "utf8")), comparable(exported)];
  expect(native.flat().length).toBeGreaterThan(10);
  const rounded = (journals) =>
    journals.map((events) => events.map(({ probability, idProbability, ...event }) => event));
  expect(rounded(web)).toEqual(rounded(native));
  const pairs = native.flat().map((event, place) => [event, web.flat()[place]]);
  for (const [a, b] of pairs) {
    expect(Math.abs((a.probability ?? 1) - (b.probability ?? 1))).toBeLessThan(1e-4);
    expect(Math.abs((a.idProbability ?? 1) - (b.idProbability ?? 1))).toBeLessThan(1e-4);
  }
});
