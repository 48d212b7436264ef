// The packed package in a project of its own, on Node: no browser, no GPU, the same API.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";

const pkg = fileURLToPath(new URL("../../pkg/", import.meta.url));
let folder;

const npm = (...args) => execFileSync("npm", args, { cwd: folder, stdio: ["ignore", "pipe", "inherit"] });
const run = (script) => {
  writeFileSync(join(folder, "script.mjs"), script);
  return JSON.parse(execFileSync(process.execPath, ["script.mjs"], { cwd: folder, encoding: "utf8" }));
};

before(() => {
  folder = mkdtempSync(join(tmpdir(), "memory-r1-"));
  writeFileSync(join(folder, "package.json"), JSON.stringify({ name: "consumer", private: true }));
  npm("pack", pkg, "--silent");
  const [tarball] = readdirSync(folder).filter((name) => name.endsWith(".tgz"));
  npm("install", `./${tarball}`, "--offline", "--no-audit", "--no-fund", "--silent");
});
after(() => rmSync(folder, { recursive: true, force: true }));

test("importing it does nothing but name its parts", () => {
  const names = run(`
    const before = Object.keys(globalThis).length;
    const names = Object.keys(await import("memory-r1"));
    console.log(JSON.stringify({ names, added: Object.keys(globalThis).length - before }));
  `);
  assert.ok(names.names.includes("MemoryR1") && names.names.includes("MemoryR1Error"));
  assert.equal(names.added, 0);
});

test("nano adds, answers, undoes, and a custom store keeps it all", () => {
  const result = run(`
    import { MemoryR1 } from "memory-r1";
    const memory = await MemoryR1.create({ seed: 1 });
    const info = await memory.info();
    const scope = { userId: "caroline" };
    await memory.add("Has a dog named Scout", { ...scope, infer: false });
    const { results } = await memory.add("By the way, I live in Lyon.", scope);
    const answer = await memory.answer("What is my dog's name?", scope);
    const before = (await memory.getAll({ filters: scope })).results.length;
    await memory.undo(scope);
    const after = (await memory.getAll({ filters: scope })).results.length;
    const data = await memory.export();
    const other = await MemoryR1.create({ seed: 2 });
    const imported = await other.import(data);
    const found = (await other.search("dog", { filters: scope })).results.map((one) => one.memory);
    await memory.close();
    await other.close();
    console.log(JSON.stringify({ info, results, answer, before, after, imported, found }));
  `);
  assert.equal(result.info.device, "cpu");
  assert.equal(result.info.worker, false);
  assert.equal(result.info.store.kind, "memory");
  assert.equal(result.info.selfCheck.status, "passed");
  assert.equal(typeof result.answer.answer, "string");
  assert.ok(result.before >= 1 && result.after >= 0 && result.after <= result.before);
  assert.ok(result.imported.imported >= 2);
  assert.deepEqual(result.found, result.after === 0 ? [] : ["Has a dog named Scout"]);
});

test("a failure has its code", () => {
  const codes = run(`
    import { MemoryR1 } from "memory-r1";
    const code = (promise) => promise.then(() => "resolved", (error) => error.code);
    console.log(JSON.stringify([
      await code(MemoryR1.create({ device: "webgpu" })),
      await code(MemoryR1.create({ store: "floppy" })),
      await code(MemoryR1.create({ model: "http://localhost:9/nothing/" })),
    ]));
  `);
  assert.deepEqual(codes, ["NO_WEBGPU", "INVALID_ARGUMENT", "NOT_REACHABLE"]);
});
