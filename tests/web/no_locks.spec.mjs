// Without `navigator.locks`, as on a page that does not come over HTTPS: what keeps two tabs apart is
// that an append names the event that it stands on.
import { expect, test } from "@playwright/test";
import { addAsIs, events, inWorkers, open, texts } from "./page.mjs";
import { statements } from "./walk.mjs";

const scope = { userId: "unlocked" };

function withoutLocks() {
  delete (globalThis.WorkerNavigator ?? globalThis.Navigator).prototype.locks;
}

async function twoTabs(context) {
  const tabs = [await context.newPage(), await context.newPage()];
  for (const tab of tabs) {
    await tab.addInitScript(withoutLocks);
    await inWorkers(tab, withoutLocks);
    await open(tab);
    expect(await tab.evaluate(() => "locks" in navigator)).toBe(false);
    expect(await tab.workers()[0].evaluate(() => "locks" in navigator)).toBe(false);
  }
  return tabs;
}

test("an add in each of two tabs at once: both are kept", async ({ context }) => {
  const [one, two] = await twoTabs(context);
  const said = [];
  for (let round = 0; round < 8; round++) {
    const pair = [`Has a cat named Tom${round}`, `Has a dog named Rex${round}`];
    said.push(...pair);
    const done = await Promise.all([addAsIs(one, [pair[0]], scope), addAsIs(two, [pair[1]], scope)]);
    expect(done.flat()).toEqual(pair.map((text) => [text, "kept"]));
  }
  expect((await texts(one, scope)).sort()).toEqual(said.sort());
  expect(await events(two)).toEqual(await events(one));
});

test("many adds of two tabs at once: each is kept, or refused with STORE_CONFLICT", async ({ context }) => {
  const [one, two] = await twoTabs(context);
  const many = (what) => Array.from({ length: 8 }, (_, number) => `Has ${what} number ${number}`);
  // Within a tab they wait for each other.
  expect((await addAsIs(one, many("bird"), scope)).map(([, outcome]) => outcome)).toEqual(
    Array(8).fill("kept"),
  );
  const done = (
    await Promise.all([addAsIs(one, many("cat"), scope), addAsIs(two, many("dog"), scope)])
  ).flat();
  const kept = done.filter(([, outcome]) => outcome === "kept").map(([text]) => text);
  const refused = done.filter(([, outcome]) => outcome !== "kept");
  console.log(`${kept.length} of ${done.length} were kept`);
  expect(refused.map(([, outcome]) => outcome)).toEqual(Array(refused.length).fill("STORE_CONFLICT"));
  expect((await texts(two, scope)).sort()).toEqual([...many("bird"), ...kept].sort());
  expect(await events(two)).toEqual(await events(one));
});

test("decisions that another tab overtakes are made again, and nothing of either is lost", async ({
  context,
}) => {
  const [one, two] = await twoTabs(context);
  // The second tab adds whenever the first has its facts and is about to decide.
  await two.evaluate((scope) => {
    window.added = [];
    window.channel = new BroadcastChannel("facts");
    window.channel.onmessage = ({ data }) =>
      window.added.push(window.memory.add(data, { ...scope, infer: false }));
  }, scope);
  const said = statements.slice(0, 5).map(([text]) => text);
  const cats = said.map((_, place) => `Has a cat named Tom${place}`);
  const { decided, restarts } = await one.evaluate(
    async ({ said, cats, scope }) => {
      const channel = new BroadcastChannel("facts");
      const decided = [];
      let restarts = 0;
      for (const [place, text] of said.entries()) {
        const onEvent = ({ type }) => {
          if (type === "facts") channel.postMessage(cats[place]);
          if (type === "restarted") restarts += 1;
        };
        decided.push(...(await window.memory.add(text, { ...scope, onEvent })).results);
      }
      return { decided, restarts };
    },
    { said, cats, scope },
  );
  await expect.poll(() => two.evaluate(() => window.added.length)).toBe(cats.length);
  await two.evaluate(() => Promise.all(window.added).then(() => true));
  console.log(`${restarts} of ${said.length} adds were decided again`);
  expect(restarts).toBeGreaterThan(0);

  // The manager may have touched a cat: what counts is the journal.
  const journal = await events(one);
  expect(await events(two)).toEqual(journal);
  expect(journal.map((event) => event.seq)).toEqual(journal.map((_, place) => place + 1));
  const added = journal.filter((event) => event.op === "ADD").map((event) => event.after.text);
  for (const cat of cats) expect(added.filter((text) => text === cat)).toEqual([cat]);
  const done = decided.filter(({ event }) => event !== "NONE").map(({ id, event }) => [id, event]);
  const kept = journal.filter((event) => event.receipt).map((event) => [event.id, event.op]);
  expect(kept).toEqual(done);
});
