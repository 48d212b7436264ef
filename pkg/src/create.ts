/** From the options of `MemoryR1.create` to a running engine. */

import type { Backend } from "./backend.js";
import * as convert from "./convert.js";
import { abortError, invalid } from "./errors.js";
import { InProcess } from "./in_process.js";
import { InWorker } from "./in_worker.js";
import { readEncoderSource, readSource } from "./models/source.js";
import type { EngineOptions, ModelSource, RemoteSource } from "./protocol.js";
import { MemoryStore } from "./store_calls.js";
import type { CreateOptions, Info, LoadProgress, Store } from "./types.js";

const DEVICES: ReadonlySet<unknown> = new Set(["auto", "webgpu", "cpu"]);
const STORE_METHODS = ["scopes", "read", "append", "rewrite", "remove"] as const;

/** A running engine, and what it keeps its journals in as the caller named it. */
export interface Connection {
  backend: Backend;
  storeKind: Info["store"]["kind"];
}

/** Starts what the options ask for. */
export async function connect(options: CreateOptions): Promise<Connection> {
  const { signal, onProgress } = options;
  const worker = options.worker ?? typeof Worker === "function";
  const { engine, store } = read(options, worker);
  if (signal?.aborted) throw abortError(signal);
  if (engine.store === "indexeddb") askToPersist();
  const callbacks = { onProgress: (progress: LoadProgress) => onProgress?.(progress), store, signal };
  const backend = await (worker ? InWorker.start(engine, callbacks) : InProcess.start(engine, callbacks));
  return {
    backend,
    storeKind: typeof options.store === "object" ? "custom" : (options.store ?? defaultStore()),
  };
}

/** The options, checked. Exported for the tests. */
export function read(
  options: CreateOptions,
  worker: boolean,
): { engine: EngineOptions; store: Store | undefined } {
  const device = options.device ?? "auto";
  if (!DEVICES.has(device)) throw invalid(`device must be "auto", "webgpu" or "cpu"`);
  const name = options.name ?? "memory-r1";
  if (typeof name !== "string" || name === "" || name.length > 256)
    throw invalid("name must have 1 to 256 characters");
  const kept = readStore(options.store);
  // Beside a worker the memory is the page's, so that it outlives a worker that breaks.
  const store = kept === "memory" && worker ? new MemoryStore() : kept;
  return {
    engine: {
      model: readModel(options.model ?? "nano", options.hub),
      embedder: readEmbedder(options.embedder ?? "lexical", options.hub),
      device,
      store: typeof store === "string" ? store : "custom",
      name: convert.wellFormed(name),
      seed:
        options.seed === undefined ? null : convert.integer(options.seed, "seed", 0, Number.MAX_SAFE_INTEGER),
      extractFrom: convert.extractFrom(options.extractFrom) ?? "user",
      test: options.__test === true,
    },
    store: typeof store === "string" ? undefined : store,
  };
}

function defaultStore(): "indexeddb" | "memory" {
  return "indexedDB" in globalThis ? "indexeddb" : "memory";
}

function readStore(store: CreateOptions["store"]): "indexeddb" | "memory" | Store {
  if (store === undefined) return defaultStore();
  if (store === "memory" || store === "indexeddb") return store;
  if (typeof store !== "object" || store === null) {
    throw invalid(`store must be "indexeddb", "memory" or an object with the Store interface`);
  }
  const lacking = STORE_METHODS.filter((method) => typeof store[method] !== "function");
  if (lacking.length > 0) throw invalid(`the store lacks ${lacking.join(", ")}; see the Store interface`);
  return store;
}

function readModel(model: NonNullable<CreateOptions["model"]>, hub: CreateOptions["hub"]): ModelSource {
  if (typeof model === "string" || model instanceof URL) return readSource(model, hub);
  if (typeof model !== "object" || model === null || !(Symbol.iterator in model)) {
    throw invalid(`model must be "nano", a URL, owner/name on Hugging Face, or the files of a bundle`);
  }
  const files = [...model];
  if (files.length === 0 || !files.every((file) => file instanceof File)) {
    throw invalid("a model's files must be File objects, and there must be some");
  }
  return { kind: "files", files: files.map((file) => ({ name: file.name, data: file })) };
}

function readEmbedder(
  embedder: NonNullable<CreateOptions["embedder"]>,
  hub: CreateOptions["hub"],
): RemoteSource | null {
  if (embedder === "lexical") return null;
  if (typeof embedder === "string" || embedder instanceof URL) return readEncoderSource(embedder, hub);
  throw invalid(`embedder must be "lexical", a URL, or owner/name on Hugging Face`);
}

/** The answer may wait for the user, and `info` looks it up; nobody waits for it here. */
function askToPersist(): void {
  globalThis.navigator?.storage?.persist?.().catch(() => {});
}

/** Whether the browser keeps the database under pressure; null where it cannot be asked. */
export async function isPersisted(): Promise<boolean | null> {
  return (await globalThis.navigator?.storage?.persisted?.().catch(() => null)) ?? null;
}
