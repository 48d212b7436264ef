/** The engine in the caller's own thread: Node, tests, and whoever has a worker already. */

import type { Backend, CallOptions, Method } from "./backend.js";
import { abortError, MemoryR1Error, toPublic } from "./errors.js";
import type { Host, HostHooks } from "./host.js";
import type { EngineOptions } from "./protocol.js";
import { callStore } from "./store_calls.js";
import type { LoadProgress, Store } from "./types.js";

/** Makes a host; tests give their own. */
export type MakeHost = (
  options: EngineOptions,
  hooks: HostHooks,
) => Promise<Pick<Host, "call" | "abort" | "close">>;

const loadHost: MakeHost = async (options, hooks) => (await import("./host.js")).Host.create(options, hooks);

export class InProcess implements Backend {
  #host: Awaited<ReturnType<MakeHost>> | undefined;
  #next = 1;
  #trap: MemoryR1Error | undefined;
  readonly #pending = new Set<(error: unknown) => void>();

  static async start(
    options: EngineOptions,
    callbacks: {
      onProgress(progress: LoadProgress): void;
      store?: Store | undefined;
      signal?: AbortSignal | undefined;
    },
    makeHost: MakeHost = loadHost,
  ): Promise<InProcess> {
    const { store, signal } = callbacks;
    const self = new InProcess();
    try {
      // A trap while loading settles nothing by itself.
      self.#host = await self.#untilTrap(
        makeHost(options, {
          onProgress: callbacks.onProgress,
          onTrap: (message) => self.#onTrap(message),
          store: store === undefined ? undefined : (method, args) => callStore(store, method, args),
          signal,
        }),
      );
    } catch (error) {
      throw toPublic(error, signal);
    }
    return self;
  }

  async call(method: Method, args: unknown, { signal, onEvent }: CallOptions = {}): Promise<unknown> {
    const host = this.#host;
    if (this.#trap !== undefined) throw this.#trap;
    if (host === undefined) throw new MemoryR1Error("INTERNAL", "the engine is not there");
    const id = this.#next++;
    const abort = () => host.abort(id);
    signal?.addEventListener("abort", abort, { once: true });
    try {
      return await this.#untilTrap(host.call(id, method, args, onEvent));
    } catch (error) {
      throw toPublic(error, signal);
    } finally {
      signal?.removeEventListener("abort", abort);
    }
  }

  facts() {
    return { worker: false, restarts: 0 };
  }

  async close(): Promise<void> {
    if (this.#trap === undefined) await this.#host?.close();
    for (const reject of this.#pending) reject(abortError());
  }

  #untilTrap<T>(work: Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      const settle = (error: unknown) => reject(error);
      this.#pending.add(settle);
      work.then(resolve, reject).finally(() => this.#pending.delete(settle));
    });
  }

  #onTrap(message: string): void {
    this.#trap = trapError(
      message,
      "this memory is lost, its store is not: load the page or the process again",
    );
    for (const reject of this.#pending) reject(this.#trap);
  }
}

/** What a call gets that was running when the engine broke. */
export function trapError(message: string, then: string): MemoryR1Error {
  const code = /device[^.]*lost/i.test(message) ? "DEVICE_LOST" : "INTERNAL";
  return new MemoryR1Error(code, `the engine stopped by a defect; ${then}`, { cause: message });
}
