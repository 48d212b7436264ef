/** What a page and its worker say to each other. Every value survives a structured clone. */

import type { Method } from "./backend.js";
import type { WireError } from "./errors.js";
import type { ExtractFrom, LoadProgress } from "./types.js";

/** A folder on a web server. */
export type RemoteSource =
  | { kind: "url"; url: string }
  | { kind: "hub"; repository: string; revision: string; endpoint: string; token: string | null };

/** Where a bundle comes from. */
export type ModelSource =
  | { kind: "nano" }
  | RemoteSource
  // A cloned `File` loses its name in some places; a `Blob` has none to lose.
  | { kind: "files"; files: { name: string; data: Blob }[] };

/** What an engine is made of, without functions. */
export interface EngineOptions {
  model: ModelSource;
  /** A sentence encoder; null: memories are found by words alone. */
  embedder: RemoteSource | null;
  device: "auto" | "webgpu" | "cpu";
  /** `"custom"`: the store's methods are called back. */
  store: "indexeddb" | "memory" | "custom";
  name: string;
  seed: number | null;
  extractFrom: ExtractFrom;
  test: boolean;
}

/** The methods of a store that can be called from a worker. */
export type StoreMethod = "scopes" | "read" | "append" | "rewrite" | "remove" | "close";

/** From the page. */
export type ToWorker =
  | { type: "create"; options: EngineOptions }
  | { type: "stop" }
  | { type: "call"; id: number; method: Method; args: unknown }
  | { type: "abort"; id: number }
  | { type: "stored"; call: number; value: unknown }
  | { type: "storeFailed"; call: number; error: WireError }
  | { type: "close" };

/** To the page. */
export type FromWorker =
  | { type: "progress"; progress: LoadProgress }
  | { type: "ready" }
  | { type: "failed"; error: WireError }
  | { type: "result"; id: number; value: unknown }
  | { type: "error"; id: number; error: WireError }
  | { type: "event"; id: number; event: unknown }
  | { type: "store"; call: number; method: StoreMethod; args: unknown[] }
  | { type: "trap"; message: string }
  | { type: "closed" };

/** One end of the conversation: a `Worker`, a worker's global scope, or a `MessagePort`. */
export interface Port<Out, In> {
  post(message: Out): void;
  /** Sets the one listener. */
  listen(listener: (message: In) => void): void;
}
