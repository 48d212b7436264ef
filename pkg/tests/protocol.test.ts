// Both ends of the worker's protocol, with structured clones between them as a worker has, and
// an engine that does as the test says.
import { afterEach, describe, expect, it, vi } from "vitest";
import { MemoryR1Error } from "../src/errors.js";
import type { HostHooks } from "../src/host.js";
import type { MakeHost } from "../src/in_process.js";
import { InWorker, type WorkerPort } from "../src/in_worker.js";
import type { EngineOptions, FromWorker, ToWorker } from "../src/protocol.js";
import { serve } from "../src/serve.js";
import { MemoryStore } from "../src/store_calls.js";
import type { StoredEvent } from "../src/types.js";

const OPTIONS: EngineOptions = {
  model: { kind: "nano" },
  embedder: null,
  device: "cpu",
  store: "memory",
  name: "test",
  seed: 1,
  extractFrom: "user",
  test: true,
};

type Call = (
  id: number,
  method: string,
  args: unknown,
  onEvent?: (event: unknown) => void,
) => Promise<unknown>;

/** Workers whose engines run `call`; each worker that was made is in `made`. */
function workers(
  call: (hooks: HostHooks, nth: number) => Call,
  onCreate?: (nth: number, options: EngineOptions) => void,
) {
  const made: {
    terminated: boolean;
    aborted: number[];
    options: EngineOptions[];
    fail(message: string): void;
  }[] = [];
  const make = (): WorkerPort => {
    const record = {
      terminated: false,
      aborted: [] as number[],
      options: [] as EngineOptions[],
      fail: (_: string) => {},
    };
    const nth = made.push(record) - 1;
    const { port1, port2 } = new MessageChannel();
    const makeHost: MakeHost = async (options, hooks) => {
      record.options.push(options);
      onCreate?.(nth, options);
      hooks.onProgress({ stage: "ready", loaded: 0, total: 0, progress: 1, text: "Ready" });
      return { call: call(hooks, nth), abort: (id) => void record.aborted.push(id), close: async () => {} };
    };
    serve(
      {
        post: (message: FromWorker) => port2.postMessage(message),
        listen: (listener) => {
          port2.onmessage = (event) => listener(event.data as ToWorker);
        },
      },
      makeHost,
    );
    open.push(() => port1.close());
    return {
      post: (message) => port1.postMessage(message),
      listen: (listener) => {
        port1.onmessage = (event) => listener(event.data as FromWorker);
      },
      onError: (listener) => {
        record.fail = listener;
      },
      terminate: () => {
        record.terminated = true;
        port1.close();
      },
    };
  };
  return { made, make };
}
const open: (() => void)[] = [];
afterEach(() => {
  for (const close of open.splice(0)) close();
});

const quiet = { onProgress: () => {} };
const never = () => new Promise<never>(() => {});
const later = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

describe("a worker", () => {
  it("answers each call by its id, in any order", async () => {
    const { make } = workers(() => async (_id, method, args) => {
      await later(method === "get" ? 30 : 1);
      return [method, args];
    });
    const progress: string[] = [];
    const engine = await InWorker.start(
      OPTIONS,
      { onProgress: ({ stage }) => void progress.push(stage) },
      make,
    );
    const order: string[] = [];
    const slow = engine.call("get", { id: "a" }).then((value) => {
      order.push("slow");
      return value;
    });
    const fast = engine.call("info", {}).then((value) => {
      order.push("fast");
      return value;
    });
    expect(await slow).toEqual(["get", { id: "a" }]);
    expect(await fast).toEqual(["info", {}]);
    expect(order).toEqual(["fast", "slow"]);
    expect(progress).toEqual(["ready"]);
    await engine.close();
  });

  it("brings events to the call that they belong to, and errors with their codes", async () => {
    const { make } = workers(() => async (id, method, _args, onEvent) => {
      onEvent?.({ of: id });
      if (method === "update") throw new MemoryR1Error("NOT_FOUND", "no such memory");
      return id;
    });
    const engine = await InWorker.start(OPTIONS, quiet, make);
    const events: unknown[] = [];
    const id = await engine.call("add", {}, { onEvent: (event) => events.push(event) });
    expect(events).toEqual([{ of: id }]);
    await expect(engine.call("update", {})).rejects.toMatchObject({
      name: "MemoryR1Error",
      code: "NOT_FOUND",
    });
    await engine.close();
  });

  it("hears an abort, and only the aborted call ends, when the engine says so", async () => {
    const { make, made } = workers(() => async (id, method) => {
      if (method === "info") return "still here";
      while (!made[0]?.aborted.includes(id)) await later(1);
      throw Object.assign(new Error("cancelled"), { code: "ABORTED" });
    });
    const engine = await InWorker.start(OPTIONS, quiet, make);
    const stop = new AbortController();
    const pending = engine.call("answer", {}, { signal: stop.signal });
    stop.abort();
    await expect(pending).rejects.toMatchObject({ name: "AbortError" });
    expect(await engine.call("info", {})).toBe("still here");
    await expect(engine.call("info", {}, { signal: stop.signal })).rejects.toMatchObject({
      name: "AbortError",
    });
    expect(made).toHaveLength(1);
    await engine.close();
  });

  it("does not deny what was kept before an abort came", async () => {
    const { make } = workers(() => async () => "kept");
    const engine = await InWorker.start(OPTIONS, quiet, make);
    const stop = new AbortController();
    const pending = engine.call("add", {}, { signal: stop.signal });
    await later(0);
    stop.abort();
    expect(await pending).toBe("kept");
    await engine.close();
  });

  it("that traps is replaced: what was pending fails, what comes after works, with the same options", async () => {
    const { make, made } = workers((hooks, nth) => async (_id, method) => {
      if (method === "panic") {
        hooks.onTrap("panicked at 'a test asked for it'");
        return never();
      }
      return method === "answer" ? never() : `from worker ${nth}`;
    });
    const engine = await InWorker.start(OPTIONS, quiet, make);
    const answer = engine.call("answer", {});
    const panic = engine.call("panic", {});
    await expect(panic).rejects.toMatchObject({
      code: "INTERNAL",
      cause: "panicked at 'a test asked for it'",
    });
    await expect(answer).rejects.toMatchObject({ code: "INTERNAL" });
    expect(await engine.call("get", {})).toBe("from worker 1");
    expect(made.map((worker) => worker.terminated)).toEqual([true, false]);
    expect(made[1]?.options).toEqual([OPTIONS]);
    expect(engine.facts()).toEqual({ worker: true, restarts: 1 });
    await engine.close();
    expect(made[1]?.terminated).toBe(true);
  });

  it("that cannot be replaced says so, and the next call tries again", async () => {
    let broken = false;
    const { make } = workers(
      (hooks) => async (_id, method) => {
        if (method !== "panic") return "back";
        hooks.onTrap("gone");
        return never();
      },
      () => {
        if (broken) throw new MemoryR1Error("NOT_REACHABLE", "no network");
      },
    );
    const engine = await InWorker.start(OPTIONS, quiet, make);
    broken = true;
    await expect(engine.call("panic", {})).rejects.toMatchObject({ code: "INTERNAL" });
    await expect(engine.call("get", {})).rejects.toMatchObject({ code: "NOT_REACHABLE" });
    broken = false;
    expect(await engine.call("get", {})).toBe("back");
    await engine.close();
  });

  it("that lost the GPU says so", async () => {
    const { make } = workers((hooks) => async () => {
      hooks.onTrap("wgpu: Device was lost");
      return never();
    });
    const engine = await InWorker.start(OPTIONS, quiet, make);
    await expect(engine.call("answer", {})).rejects.toMatchObject({ code: "DEVICE_LOST" });
    await engine.close();
  });

  it("whose GPU breaks the engine at the start goes to the CPU, if it may", async () => {
    const { make, made } = workers(
      () => async () => "ok",
      (_nth, options) => {
        if (options.device !== "cpu") throw new Error("unreachable executed");
      },
    );
    const engine = await InWorker.start({ ...OPTIONS, device: "auto" }, quiet, make);
    expect(made.map((worker) => worker.options[0]?.device)).toEqual(["auto", "cpu"]);
    expect(await engine.call("info", {})).toBe("ok");
    await engine.close();
    await expect(InWorker.start({ ...OPTIONS, device: "webgpu" }, quiet, make)).rejects.toMatchObject({
      code: "INTERNAL",
    });
  });

  it("whose script cannot be loaded is a typed error", async () => {
    const port: WorkerPort = {
      post: () => {},
      listen: () => {},
      onError: (listener) => setTimeout(() => listener("404"), 1),
      terminate: () => {},
    };
    await expect(InWorker.start(OPTIONS, quiet, () => port)).rejects.toMatchObject({ code: "NOT_REACHABLE" });
  });

  it("can be cancelled while it loads", async () => {
    const port: WorkerPort = { post: () => {}, listen: () => {}, onError: () => {}, terminate: vi.fn() };
    const stop = new AbortController();
    const starting = InWorker.start(OPTIONS, { ...quiet, signal: stop.signal }, () => port);
    stop.abort();
    await expect(starting).rejects.toMatchObject({ name: "AbortError" });
    expect(port.terminate).toHaveBeenCalledOnce();
  });

  it("that is cancelled while it loads may first keep what it has", async () => {
    let kept = false;
    const { port1, port2 } = new MessageChannel();
    open.push(() => port1.close());
    const terminate = vi.fn(() => port1.close());
    const makeHost: MakeHost = async (_options, { signal }) => {
      await new Promise((resolve) => signal?.addEventListener("abort", resolve));
      await later(50);
      kept = true;
      throw new DOMException("cancelled", "AbortError");
    };
    serve(
      {
        post: (message: FromWorker) => port2.postMessage(message),
        listen: (listener) => {
          port2.onmessage = (event) => listener(event.data as ToWorker);
        },
      },
      makeHost,
    );
    const port: WorkerPort = {
      post: (message) => port1.postMessage(message),
      listen: (listener) => {
        port1.onmessage = (event) => listener(event.data as FromWorker);
      },
      onError: () => {},
      terminate,
    };
    const stop = new AbortController();
    const starting = InWorker.start(
      { ...OPTIONS, device: "auto" },
      { ...quiet, signal: stop.signal },
      () => port,
    );
    await later(5);
    const late = new DOMException("late", "TimeoutError");
    stop.abort(late);
    await expect(starting).rejects.toBe(late);
    expect(kept).toBe(true);
    expect(terminate).toHaveBeenCalledOnce();
  });

  it("calls the page's store, and gets its failures with their codes", async () => {
    const { make } = workers((hooks) => async (_id, _method, args) => {
      const [method, ...rest] = args as [never, ...unknown[]];
      return hooks.store?.(method, rest);
    });
    const store = new MemoryStore();
    const engine = await InWorker.start({ ...OPTIONS, store: "custom" }, { ...quiet, store }, make);
    const ann = { userId: "ann" };
    const event = { v: 1, journal: "j", seq: 1, batch: 1 } satisfies StoredEvent;
    const call = (...args: unknown[]) => engine.call("get", args);
    await call("append", ann, 0, [event]);
    expect(await call("read", ann)).toEqual([event]);
    expect(await call("scopes")).toEqual([ann]);
    await expect(call("append", ann, 0, [event])).rejects.toMatchObject({ code: "STORE_CONFLICT" });
    await call("rewrite", ann, 1, []);
    expect(await call("read", ann)).toEqual([]);
    expect(await call("remove", ann)).toBe(true);
    expect(await call("scopes")).toEqual([]);
    await engine.close();
  });

  it("that is closed cancels what is pending", async () => {
    const { make } = workers(() => never);
    const engine = await InWorker.start(OPTIONS, quiet, make);
    const pending = engine.call("answer", {});
    await later(1);
    await engine.close();
    await expect(pending).rejects.toMatchObject({ name: "AbortError" });
  });
});
