/** What `MemoryR1` asks of whatever runs the engine: this thread, or a worker. */

import type { Info } from "./types.js";

/** The engine's verbs. Arguments and results are plain data (see `convert.ts`). */
export type Method =
  | "add"
  | "answer"
  | "search"
  | "get"
  | "getAll"
  | "update"
  | "delete"
  | "deleteAll"
  | "history"
  | "reset"
  | "undo"
  | "asOf"
  | "diff"
  | "export"
  | "import"
  | "decide"
  | "answerFrom"
  | "info"
  | "measure"
  | "panic";

/** How a call is made. */
export interface CallOptions {
  signal?: AbortSignal | undefined;
  /** What the engine reports while it works. */
  onEvent?: ((event: unknown) => void) | undefined;
}

/** The engine, wherever it runs. */
export interface Backend {
  call(method: Method, args: unknown, options?: CallOptions): Promise<unknown>;
  /** What this side knows that the engine does not. */
  facts(): Pick<Info, "worker" | "restarts">;
  close(): Promise<void>;
}
