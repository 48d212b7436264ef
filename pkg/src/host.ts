/** The engine in this thread: it loads the WebAssembly and the model, and passes calls on. */

import init, { Engine, on_panic } from "../wasm/memory_r1.js";
import type { Method } from "./backend.js";
import { loadBundle, loadEncoder } from "./bundle.js";
import { publicScope, scope as readScope, type WireScope } from "./convert.js";
import { abortError, MemoryR1Error, toWire } from "./errors.js";
import type { Note, OnBytes } from "./models/progress.js";
import { makeYield, probeAdapter, readLocalFile } from "./platform.js";
import type { EngineOptions, StoreMethod } from "./protocol.js";
import type { Info, LoadProgress, Scope } from "./types.js";

/** What a host calls back. */
export interface HostHooks {
  onProgress(progress: LoadProgress): void;
  /** The engine panicked: it answers nothing any more. */
  onTrap(message: string): void;
  /** A caller's store. */
  store?: ((method: StoreMethod, args: unknown[]) => Promise<unknown>) | undefined;
  signal?: AbortSignal | undefined;
}

/** An engine that is loaded. */
export class Host {
  readonly #engine: Engine;
  readonly #running = new Set<number>();

  private constructor(engine: Engine) {
    this.#engine = engine;
  }

  static async create(options: EngineOptions, hooks: HostHooks): Promise<Host> {
    const progress = new Progress(hooks.onProgress);
    const bundle = loadBundle(options.model, progress.download(), hooks.signal);
    const encoder =
      options.embedder === null ? null : loadEncoder(options.embedder, progress.download(), hooks.signal);
    const [, files, embedder, gpu] = await Promise.all([
      loadEngine(progress, hooks),
      bundle,
      encoder,
      options.device === "cpu" ? { adapter: null, why: "the CPU was asked for" } : probeAdapter(),
    ]).catch(async (error: unknown) => {
      // A cancelled download keeps what has come before this thread may end.
      if (hooks.signal?.aborted) await Promise.allSettled([bundle, encoder]);
      throw error;
    });
    if (hooks.signal?.aborted) throw abortError(hooks.signal);
    on_panic((message: string) => hooks.onTrap(message));
    const engine = await Engine.create(
      {
        files,
        embedder,
        device: options.device,
        adapter: gpu.adapter,
        adapterWhy: gpu.why,
        store: options.store,
        name: options.name,
        seed: options.seed,
        extractFrom: options.extractFrom,
        test: options.test,
      },
      makeYield(),
      (stage: LoadProgress["stage"], text: string, done?: number, total?: number) =>
        stage === "embed" ? progress.embedded(text, done ?? 0, total ?? 0) : progress.stage(stage, text),
      hooks.store === undefined ? undefined : engineStore(hooks.store),
    );
    const info = (await engine.call(0, "info", {}, undefined)) as Pick<Info, "reason" | "selfCheck">;
    if (info.selfCheck.status === "failed") console.warn(`memory-r1: ${info.reason}`);
    progress.stage("ready", "Ready");
    return new Host(engine);
  }

  async call(
    id: number,
    method: Method,
    args: unknown,
    onEvent?: (event: unknown) => void,
  ): Promise<unknown> {
    this.#running.add(id);
    try {
      return await this.#engine.call(id, method, args, onEvent);
    } finally {
      this.#running.delete(id);
    }
  }

  abort(id: number): void {
    this.#engine.abort(id);
  }

  async close(): Promise<void> {
    for (const id of this.#running) this.#engine.abort(id);
    await this.#engine.close();
    this.#engine.free();
  }
}

/** A caller's store with the names that callers use, as the engine calls it with its own. */
function engineStore(call: NonNullable<HostHooks["store"]>) {
  return async (
    method: StoreMethod,
    scope: WireScope | null,
    expected: number,
    events: unknown,
  ): Promise<unknown> => {
    const owner = scope === null ? [] : [publicScope(scope)];
    const withEvents = method === "append" || method === "rewrite";
    try {
      const value = await call(method, withEvents ? [...owner, expected, events] : owner);
      return method === "scopes" ? (value as Scope[]).map((one) => readScope(one)) : value;
    } catch (error) {
      // The engine understands plain data only. A store's own failure is not a defect of ours.
      const wire = toWire(error);
      throw wire.code === "INTERNAL" ? { ...wire, code: "STORE_FAILED" } : wire;
    }
  };
}

async function loadEngine(progress: Progress, hooks: HostHooks): Promise<void> {
  const url = new URL("../wasm/memory_r1_bg.wasm", import.meta.url);
  const local = await readLocalFile(url);
  try {
    await init({ module_or_path: local ?? (await counted(url, progress, hooks.signal)) });
  } catch (error) {
    if (hooks.signal?.aborted) throw abortError(hooks.signal);
    if (error instanceof MemoryR1Error) throw error;
    throw new MemoryR1Error("NOT_REACHABLE", `the engine cannot be loaded from ${url.href}`, {
      cause: error,
    });
  }
  progress.bytes("engine", 1, 1);
}

/** A download that is compiled as it comes, and counted on the way. */
async function counted(url: URL, progress: Progress, signal: AbortSignal | undefined): Promise<Response> {
  const response = await fetch(url, signal === undefined ? {} : { signal });
  if (!response.ok) throw new Error(`${url.href} answered ${response.status}`);
  const total = Number(response.headers.get("content-length") ?? 0);
  if (response.body === null) return response;
  let loaded = 0;
  const counter = new TransformStream<Uint8Array<ArrayBuffer>, Uint8Array<ArrayBuffer>>({
    transform(chunk, controller) {
      loaded += chunk.length;
      // A compressed answer names its compressed length: the rest of it does not move the bar.
      progress.bytes("engine", Math.min(loaded, total), total);
      controller.enqueue(chunk);
    },
  });
  return new Response(response.body.pipeThrough(counter), {
    headers: { "content-type": "application/wasm" },
  });
}

/** Several things load at once; what is reported only grows. */
class Progress {
  readonly #report: (progress: LoadProgress) => void;
  readonly #parts = { engine: 0, download: 0, after: 0 };
  readonly #downloads: { loaded: number; total: number }[] = [];
  #best = 0;

  constructor(report: (progress: LoadProgress) => void) {
    this.#report = report;
  }

  /** Hears of one of the downloads, which are reported as one. */
  download(): OnBytes {
    const own = { loaded: 0, total: 0 };
    this.#downloads.push(own);
    return (loaded, total, note) => {
      Object.assign(own, { loaded, total });
      const sum = (key: keyof typeof own) => this.#downloads.reduce((all, one) => all + one[key], 0);
      this.bytes("download", sum("loaded"), sum("total"), note);
    };
  }

  /** Memories that are embedded, long after everything is loaded. */
  embedded(text: string, loaded: number, total: number): void {
    this.#report({ stage: "embed", loaded, total, progress: total > 0 ? loaded / total : 1, text });
  }

  bytes(stage: "engine" | "download", loaded: number, total: number, note?: Note): void {
    this.#parts[stage] = total > 0 ? Math.min(1, loaded / total) : 0;
    const text = stage === "engine" ? "Loading the engine" : "Downloading the model";
    this.#send(stage, loaded, total, note ?? { text });
  }

  stage(stage: LoadProgress["stage"], text: string): void {
    this.#parts.after = { engine: 0, download: 0, model: 0.2, device: 0.4, check: 0.7, ready: 1, embed: 1 }[
      stage
    ];
    this.#send(stage, 0, 0, { text });
  }

  #send(stage: LoadProgress["stage"], loaded: number, total: number, note: Note): void {
    const { engine, download, after } = this.#parts;
    this.#best = stage === "ready" ? 1 : Math.max(this.#best, 0.4 * engine + 0.4 * download + 0.2 * after);
    this.#report({ stage, loaded, total, progress: this.#best, ...note });
  }
}
