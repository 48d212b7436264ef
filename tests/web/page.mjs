// What a person does on the demo page, as functions.
import { expect } from "@playwright/test";

/** Opens the page and waits until the memory is there. */
export async function open(page, query = "") {
  const problems = [];
  page.on("pageerror", (error) => problems.push(String(error)));
  await page.goto(`/?test&${query}`);
  await expect(page.locator("body[data-ready=true]")).toBeAttached({ timeout: 120_000 });
  return problems;
}

/**
 * Runs `script`, which must not use anything around it, before all else in every worker of the
 * page; Playwright's `addInitScript` does not reach them. To be called before `open`.
 */
export async function inWorkers(page, script) {
  await page.route(/\/assets\/worker-[^/]+\.js$/, async (route) => {
    const response = await route.fetch();
    await route.fulfill({
      contentType: "text/javascript",
      body: `(${script})();\n${await response.text()}`,
    });
  });
}

async function submitted(page, text, button, list, timeout) {
  const before = await list.count();
  await page.getByLabel("Message", { exact: true }).fill(text);
  await page.getByRole("button", { name: button, exact: true }).click();
  await expect(list).toHaveCount(before + 1, { timeout });
  await expect(page.locator("#busy")).toBeHidden({ timeout });
}

/** Tells one thing; gives what the page says the manager did: `[{event, text}]`. */
export async function tell(page, text, timeout = 120_000) {
  const lists = page.locator(".operations");
  await submitted(page, text, "Tell", lists, timeout);
  return lists.last().evaluate((list) =>
    [...list.querySelectorAll(".operation")].map((item) => ({
      event: item.dataset.event,
      text: item.textContent,
    })),
  );
}

/** Asks; gives the answer's text. */
export async function ask(page, text, timeout = 120_000) {
  const answers = page.locator(".answer");
  await submitted(page, text, "Ask", answers, timeout);
  return (await answers.last().textContent()) ?? "";
}

/** The texts of the bank, as the page shows them. */
export function bank(page) {
  return page.locator(".memory-text").allTextContents();
}

/** Adds texts as they are, all at once; `[text, "kept" or the error's code]` for each. */
export function addAsIs(page, texts, scope) {
  return page.evaluate(
    ({ texts, scope }) =>
      Promise.all(
        texts.map((text) =>
          window.memory.add(text, { ...scope, infer: false }).then(
            () => [text, "kept"],
            (error) => [text, error.code ?? error.name],
          ),
        ),
      ),
    { texts, scope },
  );
}

/** The texts of a scope's bank. */
export async function texts(page, scope) {
  const { results } = await page.evaluate(
    (scope) => window.memory.getAll({ filters: scope, topK: 1000 }),
    scope,
  );
  return results.map((one) => one.memory);
}

/** The events of the journal, from an export of all. */
export async function events(page) {
  const lines = (await page.evaluate(() => window.memory.export())).trim().split("\n");
  return lines.map((line) => JSON.parse(line)).filter((line) => line.seq !== undefined);
}

/** Erases everything through the package. */
export async function reset(page) {
  await page.evaluate(() => window.memory.reset());
}

/** Every value that the page's databases hold, as one text. */
export function rawDatabase(page) {
  return page.evaluate(async () => {
    const wait = (request) =>
      new Promise((resolve, reject) => {
        request.onsuccess = () => resolve(request.result);
        request.onerror = () => reject(request.error);
      });
    const parts = [];
    for (const { name } of await indexedDB.databases()) {
      const database = await wait(indexedDB.open(name));
      for (const storeName of database.objectStoreNames) {
        const store = database.transaction(storeName).objectStore(storeName);
        parts.push(JSON.stringify([await wait(store.getAllKeys()), await wait(store.getAll())]));
      }
      database.close();
    }
    return parts.join("\n");
  });
}
