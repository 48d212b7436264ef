// The short walk on the GPU path; here the adapter is software, and slow.
import { expect, test } from "@playwright/test";
import { ask, bank, open, tell } from "./page.mjs";
import { statements } from "./walk.mjs";

test("three facts, one question and a reload on WebGPU", async ({ page }) => {
  test.setTimeout(600_000);
  const problems = await open(page, "device=webgpu");
  await expect(page.locator("#device")).toContainText("WebGPU");
  const info = await page.evaluate(() => window.memory.info());
  expect(info.selfCheck.status).toBe("passed");
  expect(info.adapter.software).toBe(true);

  for (const [text] of statements.slice(0, 3)) console.log(text, await tell(page, text, 200_000));
  const kept = await bank(page);
  expect(kept.length).toBeGreaterThanOrEqual(2);
  const answer = await ask(page, "Where do I live?", 200_000);
  console.log(answer);

  await page.reload();
  await expect(page.locator("body[data-ready=true]")).toBeAttached({ timeout: 120_000 });
  expect(await bank(page)).toEqual(kept);
  expect(answer).toContain("Ghent");
  expect(problems).toEqual([]);
});

test("auto takes the CPU where the adapter is only software, and says why", async ({ page }) => {
  await open(page);
  const info = await page.evaluate(() => window.memory.info());
  expect(info.device).toBe("cpu");
  expect(info.reason).toMatch(/software/i);
});
