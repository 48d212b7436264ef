// IndexedDB that another tab holds back, or that the browser denies: it is told, and nothing is lost.
import { expect, test } from "@playwright/test";
import { addAsIs, inWorkers, open, texts } from "./page.mjs";

const scope = { userId: "blocked" };
const name = "memory-r1";

/** A tab that has the database open, at the version that it is, and does not give way. */
async function holder(context) {
  const page = await context.newPage();
  await page.route("**/holder", (route) =>
    route.fulfill({ contentType: "text/html", body: "<title>holder" }),
  );
  await page.goto("/holder");
  await page.evaluate(
    (name) =>
      new Promise((resolve, reject) => {
        const request = indexedDB.open(name);
        request.onerror = () => reject(request.error);
        request.onsuccess = () => {
          window.held = request.result; // a connection that is garbage would be closed
          resolve();
        };
      }),
    name,
  );
  return page;
}

/** The package as its next version may be, whose schema has one number more. */
function nextSchema() {
  const { open } = IDBFactory.prototype;
  IDBFactory.prototype.open = function (name, version) {
    return open.call(this, name, version + 1);
  };
}

async function expectBlocked(page) {
  const notice = page.locator("#notice");
  await expect(notice).toContainText("STORE_BLOCKED", { timeout: 30_000 });
  await expect(page.locator("#load-text")).toHaveText("The memory could not be started.");
  return notice;
}

test("an older version that another tab keeps open is STORE_BLOCKED, until that tab is closed", async ({
  context,
}) => {
  const older = await context.newPage();
  await open(older);
  expect(await addAsIs(older, ["Lives in Ghent"], scope)).toEqual([["Lives in Ghent", "kept"]]);
  const held = await holder(context);

  const newer = await context.newPage();
  await inWorkers(newer, nextSchema);
  await newer.goto("/?test");
  await expect(await expectBlocked(newer)).toContainText("another tab holds an older version");

  // The package's own tab gave way when it was asked to: it says so, and adds nothing halfway.
  const refused = "Has a dog named Pickle";
  expect(await addAsIs(older, [refused], scope)).toEqual([[refused, "STORE_BLOCKED"]]);

  await held.close();
  await open(newer);
  expect(await newer.evaluate(() => indexedDB.databases())).toEqual([{ name, version: 3 }]);
  expect(await texts(newer, scope)).toEqual(["Lives in Ghent"]);
  expect(await addAsIs(newer, ["Plays the banjo"], scope)).toEqual([["Plays the banjo", "kept"]]);
  expect(await texts(newer, scope)).toEqual(["Lives in Ghent", "Plays the banjo"]);
});

// A request that stands in line behind another one gets no event: a deadline ends the wait.
test("a database that another tab waits to delete is STORE_BLOCKED, at every visit", async ({ context }) => {
  const page = await context.newPage();
  await open(page);
  await page.evaluate(() => window.memory.close());
  const held = await holder(context);
  await held.evaluate(
    (name) =>
      new Promise((resolve) => {
        indexedDB.deleteDatabase(name).onblocked = () => resolve();
      }),
    name,
  );
  await page.reload();
  await expectBlocked(page);
  await page.reload();
  await expectBlocked(page);
  await held.close();
  await open(page);
});

// Both for the page's own scope and for the worker's.
const denials = {
  "throws when it is opened": () => {
    const deny = () => {
      throw new DOMException("Access is denied for this document.", "SecurityError");
    };
    IDBFactory.prototype.open = deny;
    // A browser that blocks cookies denies this one by its mere name.
    if ("document" in globalThis) Object.defineProperty(globalThis, "localStorage", { get: deny });
  },
  "is null": () => Object.defineProperty(globalThis, "indexedDB", { value: null }),
};
for (const [how, deny] of Object.entries(denials)) {
  test(`IndexedDB that ${how} is STORE_BLOCKED, and what was kept stays`, async ({ context }) => {
    const allowed = await context.newPage();
    await open(allowed);
    await addAsIs(allowed, ["Lives in Ghent"], scope);

    const denied = await context.newPage();
    await denied.addInitScript(deny);
    await inWorkers(denied, deny);
    await denied.goto("/?test");
    await expect(await expectBlocked(denied)).toContainText(/no IndexedDB|denies/);

    expect(await texts(allowed, scope)).toEqual(["Lives in Ghent"]);
    await allowed.reload();
    await expect(allowed.locator("body[data-ready=true]")).toBeAttached();
    expect(await texts(allowed, scope)).toEqual(["Lives in Ghent"]);
  });
}
