// The real engine in Node, on the CPU, with a model without training: whatever it decides, the
// journal holds. Needs what `./build.sh wasm` builds.
import { execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Host } from "../src/host.js";
import { InWorker } from "../src/in_worker.js";
import { type AddProgress, type Answer, type CreateOptions, MemoryR1, MemoryR1Error } from "../src/index.js";
import type { FromWorker, ToWorker } from "../src/protocol.js";
import { serve } from "../src/serve.js";
import { MemoryStore } from "../src/store_calls.js";
import { asFiles, untrainedBundle } from "./untrained_bundle.js";

const bundle = untrainedBundle();
const create = (options: CreateOptions = {}) =>
  MemoryR1.create({ model: asFiles(bundle), store: "memory", device: "cpu", seed: 7, ...options });
const ann = { userId: "ann" };

describe("the engine in Node", () => {
  let memory: MemoryR1;
  const stages: string[] = [];
  beforeAll(async () => {
    memory = await create({
      onProgress: ({ stage, progress }) => {
        expect(progress).toBeGreaterThanOrEqual(0);
        expect(progress).toBeLessThanOrEqual(1);
        if (stages.at(-1) !== stage) stages.push(stage);
      },
    });
  });
  afterAll(() => memory.close());

  it("says what runs, and how it came to it", async () => {
    expect(stages.at(-1)).toBe("ready");
    for (const stage of ["engine", "download", "model", "check"]) expect(stages).toContain(stage);
    expect(await memory.info()).toMatchObject({
      device: "cpu",
      reason: "the CPU was asked for",
      adapter: null,
      embedder: null,
      model: { name: "untrained", promptFamily: "compact", contextLength: 1024, managerCandidates: 5 },
      selfCheck: { status: "skipped", maxDifference: null },
      store: { kind: "memory", name: "memory-r1", persisted: null },
      worker: false,
      restarts: 0,
      seed: 7,
    });
    expect((await memory.info()).model.fingerprint).toMatch(/^[0-9a-f]{64}$/);
  });

  it("keeps a text as it is, finds it, changes it, forgets it and takes that back", async () => {
    const scope = { userId: "bob", runId: "1" };
    const { results } = await memory.add("Has a dog named Scout", {
      ...scope,
      infer: false,
      timestamp: new Date("2024-03-02T10:00:00Z"),
      metadata: { source: "chat", n: 1.5, list: [1, { a: null }] },
    });
    const [added] = results;
    expect(added).toMatchObject({ event: "ADD", memory: "Has a dog named Scout", probability: 1 });
    const id = added?.id ?? "";
    expect(await memory.get(id)).toMatchObject({
      id,
      memory: "Has a dog named Scout",
      speaker: "user",
      observedAt: "2024-03-02T10:00:00.000Z",
      metadata: { source: "chat", n: 1.5, list: [1, { a: null }] },
      userId: "bob",
      runId: "1",
    });
    await memory.add("Likes the sea", { ...scope, infer: false });

    const found = await memory.search("dogs", { filters: { user_id: "bob" }, explain: true });
    expect(found.results.map((one) => one.memory)).toEqual(["Has a dog named Scout"]);
    expect(found.results[0]?.score).toBeGreaterThan(0);
    expect(found.results[0]?.score).toBeLessThanOrEqual(1);
    expect(found.results[0]?.explanation).toBeTypeOf("object");
    expect((await memory.search("dogs", { ...scope, threshold: 1 })).results).toEqual([]);

    expect(await memory.update(id, "Has a dog named Skip")).toMatchObject({
      id,
      memory: "Has a dog named Skip",
    });
    await memory.delete(id);
    await expect(memory.get(id)).rejects.toMatchObject({ name: "MemoryR1Error", code: "NOT_FOUND" });
    const history = await memory.history(id);
    expect(history.map((entry) => [entry.event, entry.previousMemory, entry.memory, entry.cause])).toEqual([
      ["ADD", null, "Has a dog named Scout", "user"],
      ["UPDATE", "Has a dog named Scout", "Has a dog named Skip", "user"],
      ["DELETE", "Has a dog named Skip", null, "user"],
    ]);
    expect(typeof history[0]?.seq).toBe("number");

    expect((await memory.undo(scope)).results).toMatchObject([{ cause: "undo", memoryId: id }]);
    expect((await memory.get(id)).memory).toBe("Has a dog named Skip");
    const then = await memory.asOf(scope, 1);
    expect(then.results.map((one) => one.memory)).toEqual(["Has a dog named Scout"]);
    expect((await memory.diff(scope, 1, 3)).results).toEqual([
      { id: expect.any(String), event: "ADD", memory: "Likes the sea", previousMemory: null },
      { id, event: "UPDATE", memory: "Has a dog named Skip", previousMemory: "Has a dog named Scout" },
    ]);
    expect((await memory.getAll({ filters: { userId: "bob" }, topK: 1 })).results).toHaveLength(1);
    expect((await memory.getAll({ ...ann })).results).toEqual([]);

    await memory.delete(id, { erase: true });
    expect(await memory.export(scope)).not.toContain("Scout");
    await memory.deleteAll(scope);
    expect(await memory.export(scope)).not.toContain("sea");
  });

  it("lets the agents decide, telling each operation as it happens, and replays to the same bytes", async () => {
    const events: AddProgress[] = [];
    const said: string[] = [];
    const turn = "I adopted a dog named Scout. I live in Lyon.";
    const first = await memory.add(turn, {
      ...ann,
      timestamp: "2024-03-02",
      onEvent: (event) => events.push(event),
      onDecision: (decision, index, total) => said.push(`${index + 1}/${total} ${decision.event}`),
    });
    expect(events[0]?.type).toBe("facts");
    const decided = events.flatMap((event) => (event.type === "decision" ? [event.decision] : []));
    expect(decided).toEqual(first.results);
    expect(said).toHaveLength(first.results.length);
    for (const result of first.results) {
      expect(["ADD", "UPDATE", "DELETE", "NONE"]).toContain(result.event);
      expect(result.probability).toBeGreaterThan(0);
      expect(result.probability).toBeLessThanOrEqual(1);
      expect(result.receipt?.turn.content).toBe(turn);
    }

    const other = await create();
    await other.add(turn, { ...ann, timestamp: "2024-03-02" });
    const withoutTimes = (text: string) => text.replaceAll(/"(at|created|updated)":"[^"]*"/g, "");
    const nothing = (error: unknown) => (error as MemoryR1Error).code;
    const [one, two] = await Promise.all([memory, other].map((each) => each.export(ann).catch(nothing)));
    expect(withoutTimes(one ?? "")).toBe(withoutTimes(two ?? ""));
    await other.close();
  });

  it("answers, as a whole and in pieces", async () => {
    const scope = { userId: "carol" };
    for (const text of ["Has a dog named Scout", "Lives in Lyon"]) {
      await memory.add(text, { ...scope, infer: false });
    }
    const answer = await memory.answer("Where does Carol live?", scope);
    expect(answer.answer.length).toBeGreaterThan(0);
    expect(answer.candidates).toHaveLength(2);
    let text = "";
    let done: Answer | undefined;
    for await (const chunk of memory.answerStream("Where does Carol live?", scope)) {
      if (chunk.type === "done") done = chunk;
      else text += chunk.text;
    }
    expect(text).toBe(answer.answer);
    expect(done).toMatchObject(answer);
    expect(await memory.answer("Anything?", { userId: "nobody" })).toEqual({
      answer: "I don't know",
      memories: [],
      candidates: [],
    });
  });

  it("lends its two agents alone, which keep nothing", async () => {
    const memories = [
      { id: "a", memory: "Has a dog named Scout", timestamp: "2023-05-08" },
      { id: "b", memory: "Lives in Lyon", timestamp: 0 },
    ];
    const { results } = await memory.manager.decide(["has a dog, named Scout!", "Moved to Rome"], memories);
    expect(results[0]).toMatchObject({ event: "NONE", known: true, probability: 1 });
    expect(results).toHaveLength(2);
    const answer = await memory.answerAgent.answer("Where?", memories);
    for (const used of answer.memories) expect(memories).toContain(used);
  });

  it("stops when it is told to, at once, and keeps nothing of it", async () => {
    const scope = { userId: "dave" };
    const stop = new AbortController();
    const started = performance.now();
    const pending = memory.add(Array(200).fill("I have a dog and a cat and a house."), {
      ...scope,
      signal: stop.signal,
    });
    setTimeout(() => stop.abort(), 50);
    await expect(pending).rejects.toMatchObject({ name: "AbortError" });
    expect(performance.now() - started).toBeLessThan(1_000);
    expect((await memory.getAll(scope)).results).toEqual([]);
    await expect(memory.answer("?", { ...scope, signal: AbortSignal.abort() })).rejects.toMatchObject({
      name: "AbortError",
    });
  });

  it("cancels an answer that had ended unread when it was told to stop", async () => {
    const scope = { userId: "carol" };
    const stop = new AbortController();
    const chunks = memory.answerStream("Where does Carol live?", { ...scope, signal: stop.signal });
    expect((await chunks.next()).value).toMatchObject({ type: "text" });
    // Calls are served in their order: when the second has its answer, the first has ended.
    await memory.answer("Where does Carol live?", scope);
    stop.abort();
    await expect(chunks.next()).rejects.toMatchObject({ name: "AbortError" });
  });

  it("stops an answer whose reader went away", async () => {
    const scope = { userId: "carol" };
    for await (const chunk of memory.answerStream("Where does Carol live?", scope)) {
      if (chunk.type === "text") break;
    }
    expect((await memory.info()).device).toBe("cpu");
  });

  it("exports, and imports twice without change; what diverges is refused", async () => {
    const scope = { userId: "erin" };
    await memory.add("Has a dog named Scout", { ...scope, infer: false });
    const data = await memory.export(scope);
    const other = await create();
    expect(await other.import(data)).toEqual({ imported: 1, skipped: 0 });
    expect(await other.import(new Blob([data]))).toEqual({ imported: 0, skipped: 1 });
    expect(await other.export()).toBe(data);
    await memory.update((await memory.getAll(scope)).results[0]?.id ?? "", "Has a cat");
    await other.update((await other.getAll(scope)).results[0]?.id ?? "", "Has a bird");
    await expect(other.import(await memory.export(scope))).rejects.toMatchObject({ code: "STORE_CONFLICT" });
    await expect(other.import("not an export")).rejects.toMatchObject({ code: "STORE_CORRUPT" });
    await expect(other.import(data.slice(0, -20))).rejects.toMatchObject({ code: "STORE_CORRUPT" });
    await other.reset();
    await expect(other.export()).rejects.toMatchObject({ code: "NOT_FOUND" });
    await other.close();
  });

  it("refuses bad input by name, and loses nothing", async () => {
    const scope = { userId: "frank" };
    await memory.add("Has a dog", { ...scope, infer: false });
    const huge = "a".repeat(1_048_576);
    const calls: (() => Promise<unknown>)[] = [
      () => memory.add("", scope),
      () => memory.add(huge, scope),
      () => memory.add("Hello", {}),
      () => memory.add("Hello", { ...scope, timestamp: "the day after never" }),
      () => memory.add([{ role: "user", content: "Hello", timestamp: "32 May" }], scope),
      () => memory.search(huge, scope),
      () => memory.search("dog", {}),
      () => memory.answer("", scope),
      () => memory.deleteAll({}),
      () => memory.asOf(scope, 99),
    ];
    for (const call of calls) await expect(call()).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
    for (const call of [memory.get("x"), memory.update("x", "y"), memory.delete("x"), memory.history("x")]) {
      await expect(call).rejects.toMatchObject({ code: "NOT_FOUND" });
    }
    await memory.add("control\u0000 and \ud800 surrogates", scope);
    expect((await memory.getAll(scope)).results.map((one) => one.memory)).toContain("Has a dog");
    await expect(memory.__panic()).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
  });

  it("refuses a bundle with a flipped byte or without a file", async () => {
    const broken = new Map([...bundle].map(([name, bytes]) => [name, bytes.slice()]));
    const weights = broken.get("model.safetensors");
    if (weights) weights[5_000] = (weights[5_000] ?? 0) ^ 1;
    await expect(create({ model: asFiles(broken) })).rejects.toMatchObject({ code: "MODEL_INTEGRITY" });
    const lacking = new Map(bundle);
    lacking.delete("tokenizer.json");
    await expect(create({ model: asFiles(lacking) })).rejects.toMatchObject({ code: "MODEL_INTEGRITY" });
  });

  it("says that there is no WebGPU where it was asked for", async () => {
    await expect(create({ device: "webgpu" })).rejects.toMatchObject({ code: "NO_WEBGPU" });
    const auto = await create({ device: "auto" });
    expect(await auto.info()).toMatchObject({ device: "cpu", reason: expect.stringContaining("no WebGPU") });
    await auto.close();
  });

  it("keeps its journals in a caller's store, whose failures keep their codes", async () => {
    const store = new MemoryStore();
    const first = await create({ store });
    await first.add("Has a dog named Scout", { ...ann, infer: false });
    await first.close();
    const second = await create({ store });
    expect((await second.info()).store.kind).toBe("custom");
    expect((await second.getAll(ann)).results.map((one) => one.memory)).toEqual(["Has a dog named Scout"]);
    await second.undo(ann);
    expect((await second.getAll(ann)).results).toEqual([]);
    store.append = () => {
      throw new DOMException("full", "QuotaExceededError");
    };
    await expect(second.add("Has a cat", { ...ann, infer: false })).rejects.toMatchObject({
      code: "QUOTA_EXCEEDED",
    });
    store.append = () => {
      throw new TypeError("a defect of the store");
    };
    await expect(second.add("Has a cat", { ...ann, infer: false })).rejects.toMatchObject({
      code: "STORE_FAILED",
    });
    await second.reset();
    expect(store.scopes()).toEqual([]);
    await second.close();
    await expect(second.info()).rejects.toBeInstanceOf(MemoryR1Error);
  });

  it("decides again when another was faster, and gives up after three times", async () => {
    const store = new MemoryStore();
    const memory = await create({ store });
    const append = store.append.bind(store);
    let faster = 2;
    store.append = (scope, expected, events) => {
      if (faster-- > 0) throw new MemoryR1Error("STORE_CONFLICT", "another was faster");
      append(scope, expected, events);
    };
    await memory.add("Has a dog", { ...ann, infer: false });
    faster = 100;
    await expect(memory.add("Has a cat", { ...ann, infer: false })).rejects.toMatchObject({
      code: "STORE_CONFLICT",
    });
    expect((await memory.getAll(ann)).results).toHaveLength(1);
    await memory.close();
  });
});

describe("nano, the model in the package", () => {
  it("is the default, computes what its bundle says, and remembers a plain fact", async () => {
    const memory = await MemoryR1.create();
    const info = await memory.info();
    expect(info).toMatchObject({ device: "cpu", model: { name: "nano" }, selfCheck: { status: "passed" } });
    expect(info.selfCheck.maxDifference).toBeLessThan(1e-3);
    const { results } = await memory.add("I have a dog named Rex.", { ...ann, timestamp: "2024-03-02" });
    expect(results.map((one) => one.event)).toEqual(["ADD"]);
    expect(results[0]?.memory).toContain("Rex");
    const { answer, memories } = await memory.answer("What is the name of my dog?", ann);
    expect(answer).toContain("Rex");
    expect(memories.map((one) => one.id)).toEqual([results[0]?.id]);
    await memory.close();
  });
});

describe("the engine behind the worker's protocol", () => {
  it("does the same, with its memory on the page", async () => {
    const { port1, port2 } = new MessageChannel();
    serve(
      {
        post: (message: FromWorker) => port2.postMessage(message),
        listen: (listener) => {
          port2.onmessage = (event) => listener(event.data as ToWorker);
        },
      },
      Host.create,
    );
    const store = new MemoryStore();
    const engine = await InWorker.start(
      {
        model: { kind: "files", files: asFiles(bundle).map((file) => ({ name: file.name, data: file })) },
        embedder: null,
        device: "cpu",
        store: "custom",
        name: "test",
        seed: 7,
        extractFrom: "user",
        test: true,
      },
      { onProgress: () => {}, store },
      () => ({
        post: (message) => port1.postMessage(message),
        listen: (listener) => {
          port1.onmessage = (event) => listener(event.data as FromWorker);
        },
        onError: () => {},
        terminate: () => port1.close(),
      }),
    );
    const turn = { role: "user", speaker: "user", content: "Has a dog", timestamp: "2024-03-02" };
    const scope = { user_id: "ann" };
    await engine.call("add", { scope, turns: [turn], infer: false });
    expect(store.read({ userId: "ann" })).toHaveLength(1);
    const stop = new AbortController();
    const pending = engine.call("answer", { scope, question: "Which dog?" }, { signal: stop.signal });
    setTimeout(() => stop.abort(), 1);
    await expect(pending).rejects.toMatchObject({ name: "AbortError" });
    expect(await engine.call("getAll", { scope })).toMatchObject({ results: [{ memory: "Has a dog" }] });
    await engine.close();
  });
});

describe("a sentence encoder", () => {
  // A tiny one without training: equal texts have equal vectors, and that is all that it knows.
  const embedder = new URL("../../crate/tests/fixtures/encoders/mean/", import.meta.url);

  it("finds memories beside their words, and is told about", async () => {
    const stages: string[] = [];
    const memory = await create({
      embedder,
      onProgress: ({ stage, loaded, total, progress }) => {
        if (stage === "embed") expect(progress).toBe(loaded / total);
        stages.push(stage === "embed" ? `${stage} ${loaded}/${total}` : stage);
      },
    });
    expect((await memory.info()).embedder).toEqual({
      fingerprint: expect.stringMatching(/^[0-9a-f]{64}$/),
      dimensions: 32,
    });
    for (let n = 0; n < 20; n++) await memory.add(`Likes the number ${n}`, { ...ann, infer: false });
    const { results } = await memory.search("Likes the number 7", { ...ann, explain: true });
    expect(results[0]?.memory).toBe("Likes the number 7");
    expect(results[0]?.explanation?.cosine).toBeCloseTo(1, 4);
    expect(results[0]?.explanation?.fused).toBeCloseTo(2 / 61, 9);
    expect(stages.filter((stage) => stage.startsWith("embed"))).toEqual(["embed 16/20", "embed 20/20"]);
    await memory.search("Likes the number 8", ann);
    expect(stages.at(-1)).toBe("embed 20/20");
    const stop = new AbortController();
    stop.abort();
    await expect(memory.search("x", { ...ann, signal: stop.signal })).rejects.toMatchObject({
      name: "AbortError",
    });
    await memory.close();
  });

  it("that is none is refused with a code", async () => {
    const decoder = new URL("../../crate/tests/fixtures/decoders/qwen2_tied/", import.meta.url);
    await expect(create({ embedder: decoder })).rejects.toMatchObject({ code: "MODEL_UNSUPPORTED" });
    await expect(create({ embedder: "file:///nowhere" })).rejects.toMatchObject({ code: "NOT_REACHABLE" });
  });
});

describe("the built package", () => {
  const run = (script: string) =>
    execFileSync(process.execPath, ["--input-type=module", "--eval", script], {
      cwd: new URL("..", import.meta.url),
      encoding: "utf8",
    });

  it("does nothing when it is imported, and has the names that it promises", () => {
    const script = `
      const before = Object.keys(globalThis).length;
      const exported = await import("memory-r1");
      console.log(JSON.stringify([Object.keys(exported).sort(), Object.keys(globalThis).length - before]));`;
    expect(JSON.parse(run(script))).toEqual([["MemoryR1", "MemoryR1Error", "models"], 0]);
  });

  it("ships every file that its exports name", () => {
    const manifest = JSON.parse(readFileSync(new URL("../package.json", import.meta.url), "utf8"));
    expect(Object.keys(manifest.exports["."])[0]).toBe("types");
    const targets = [...Object.values(manifest.exports["."]), manifest.exports["./memory_r1_bg.wasm"]];
    for (const target of targets) {
      expect(existsSync(new URL(`../${target}`, import.meta.url)), `${target}`).toBe(true);
      expect(
        manifest.files.some((kept: string) => `${target}`.startsWith(`./${kept}`)),
        `${target}`,
      ).toBe(true);
    }
  });
});
