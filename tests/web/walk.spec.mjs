// A person's first visit, on the CPU backend: the fast one where there is no GPU.
import { expect, test } from "@playwright/test";
import { ask, bank, open, tell } from "./page.mjs";
import { questions, statements } from "./walk.mjs";

test("twelve statements, five questions, a reload, and the memory is still there", async ({ page }) => {
  const problems = await open(page);
  await expect(page.locator("#device")).toContainText("CPU");

  const wrong = [];
  for (const [text, expected] of statements) {
    const done = (await tell(page, text)).filter(({ event }) => event !== "NONE");
    const right = expected === "NONE" ? done.length === 0 : done.length === 1 && done[0].event === expected;
    if (!right) wrong.push(`${text} wanted ${expected}, got ${JSON.stringify(done)}`);
  }
  console.log(`operations: ${statements.length - wrong.length} of ${statements.length}\n${wrong.join("\n")}`);
  expect(statements.length - wrong.length, wrong.join("\n")).toBeGreaterThanOrEqual(10);

  const answer = async () => {
    const misses = [];
    for (const [text, word] of questions) {
      const said = await ask(page, text);
      if (!said.toLowerCase().includes(word.toLowerCase()))
        misses.push(`${text} wanted ${word}, got ${said}`);
    }
    console.log(`answers: ${questions.length - misses.length} of ${questions.length}\n${misses.join("\n")}`);
    return questions.length - misses.length;
  };
  const before = await answer();
  // The goal is four. nano cannot spell what training never made it write at the start of an answer
  // (docs/nano.md, "Where it fails"): Pickle is such a name.
  expect(before).toBeGreaterThanOrEqual(3);

  // The memories that the last answer used are lit up in the bank, if it used any.
  const used = await page.locator(".message").last().locator(".used li").count();
  await expect(page.locator(".memory.used-now")).toHaveCount(used);

  const kept = await bank(page);
  expect(kept.length).toBeGreaterThanOrEqual(4);
  await page.reload();
  await expect(page.locator("body[data-ready=true]")).toBeAttached();
  expect(await bank(page)).toEqual(kept);
  expect(await answer()).toBe(before);
  expect(problems).toEqual([]);
});

test("undo, history, export, import and forgetting work on the page", async ({ page }) => {
  await open(page);
  await tell(page, "Oh, and I have a dog named Pickle.");
  const kept = await bank(page);
  test.skip(kept.length === 0, "nano kept nothing of this sentence");

  await page.locator(".memory details").first().locator("summary").click();
  await expect(page.locator(".history li").first()).toContainText("ADD");
  await expect(page.locator(".history li").first()).toContainText("I have a dog named Pickle");

  await page.getByRole("button", { name: "Undo" }).click();
  await expect(page.locator(".memory-text")).toHaveCount(0);
  await page.getByRole("button", { name: "Undo" }).click();

  await tell(page, "Oh, and I have a dog named Pickle.");
  const download = page.waitForEvent("download");
  await page.getByText("More").click();
  await page.getByRole("button", { name: "Export journal" }).click();
  const path = await (await download).path();

  await page.getByText("More").click();
  await page.getByRole("button", { name: "Forget everything" }).click();
  await page.getByRole("button", { name: "Erase", exact: true }).click();
  await expect(page.locator(".memory-text")).toHaveCount(0);

  await page.locator("#import").setInputFiles(path);
  await expect(page.locator(".memory-text")).toHaveText(kept);
});

for (const [device, viewport] of [
  ["phone", { width: 390, height: 844 }],
  ["desktop", { width: 1280, height: 800 }],
]) {
  for (const colorScheme of ["light", "dark"]) {
    test(`a screenshot: ${device}, ${colorScheme}`, async ({ browser }) => {
      const context = await browser.newContext({ viewport, colorScheme });
      const page = await context.newPage();
      await open(page);
      await page.getByRole("button", { name: /Moving house/ }).click();
      await expect(page.locator("#busy")).toBeHidden({ timeout: 120_000 });
      await page.screenshot({ path: `artifacts/${device}-${colorScheme}.png` });
      const wide = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
      expect(wide, "nothing runs out of the window sideways").toBeLessThanOrEqual(0);
      await context.close();
    });
  }
}
