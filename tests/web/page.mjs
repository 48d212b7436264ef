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
