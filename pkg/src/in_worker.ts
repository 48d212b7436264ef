/** The page's end of the protocol: an engine in a worker, which is replaced when it breaks. */

import type { Backend, CallOptions, Method } from "./backend.js";
import { abortError, fromWire, MemoryR1Error, toWire } from "./errors.js";
import { trapError } from "./in_process.js";
import type { EngineOptions, FromWorker, Port, ToWorker } from "./protocol.js";
import { callStore } from "./store_calls.js";
import type { LoadProgress, Store } from "./types.js";

/** A worker as the page sees it. */
export interface WorkerPort extends Port<ToWorker, FromWorker> {
  /** Hears of a script that cannot be loaded or throws. */
  onError(listener: (message: string) => void): void;
  terminate(): void;
}

/** How long a worker may take to close its store before it is ended. */
const CLOSE_MS = 2_000;
/** How long one that is cancelled while it loads may take to keep what has come of a model. */
const STOP_MS = 500;

interface Pending {
  resolve(value: unknown): void;
  reject(error: unknown): void;
  onEvent: CallOptions["onEvent"];
  signal: AbortSignal | undefined;
}

interface Starting {
  resolve(): void;
  reject(error: unknown): void;
}

interface Callbacks {
  onProgress(progress: LoadProgress): void;
  store?: Store | undefined;
}

export class InWorker implements Backend {
  readonly #options: EngineOptions;
  readonly #callbacks: Callbacks;
  readonly #makeWorker: () => WorkerPort;
  readonly #pending = new Map<number, Pending>();
  #worker: WorkerPort | undefined;
  #starting: Starting | undefined;
  /** Resolves when the worker of the moment can be called. */
  #ready: Promise<void> | undefined;
  #onClosed: (() => void) | undefined;
  #next = 1;
  #restarts = 0;
  #closed = false;

  private constructor(options: EngineOptions, callbacks: Callbacks, makeWorker: () => WorkerPort) {
    this.#options = options;
    this.#callbacks = callbacks;
    this.#makeWorker = makeWorker;
  }

  static async start(
    options: EngineOptions,
    callbacks: Callbacks & { signal?: AbortSignal | undefined },
    makeWorker: () => WorkerPort = moduleWorker,
  ): Promise<InWorker> {
    const { signal } = callbacks;
    const self = new InWorker(options, callbacks, makeWorker);
    let timer: ReturnType<typeof setTimeout> | undefined;
    const stop = () => {
      self.#worker?.post({ type: "stop" });
      timer = setTimeout(() => self.#starting?.reject(abortError(signal)), STOP_MS);
    };
    signal?.addEventListener("abort", stop, { once: true });
    try {
      await self.#start(options).catch((error: unknown) => {
        self.#drop();
        // A GPU can break the engine where a CPU would not.
        const onGpu = options.device === "auto" && error instanceof MemoryR1Error && BROKEN.has(error.code);
        if (!onGpu || signal?.aborted) throw error;
        return self.#start({ ...options, device: "cpu" });
      });
      if (signal?.aborted) throw abortError(signal);
    } catch (error) {
      self.#drop();
      throw signal?.aborted ? abortError(signal) : error;
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener("abort", stop);
    }
    return self;
  }

  async call(method: Method, args: unknown, { signal, onEvent }: CallOptions = {}): Promise<unknown> {
    // After a restart that failed, the next call tries again.
    if (this.#ready === undefined) await this.#start(this.#options);
    else await this.#ready;
    const worker = this.#worker;
    if (signal?.aborted) throw abortError(signal);
    if (worker === undefined || this.#closed) throw abortError();
    const id = this.#next++;
    // The engine decides whether an abort came in time: what it has kept, it does not deny.
    const abort = () => worker.post({ type: "abort", id });
    signal?.addEventListener("abort", abort, { once: true });
    try {
      return await new Promise((resolve, reject) => {
        this.#pending.set(id, { resolve, reject, onEvent, signal });
        worker.post({ type: "call", id, method, args });
      });
    } finally {
      this.#pending.delete(id);
      signal?.removeEventListener("abort", abort);
    }
  }

  facts() {
    return { worker: true, restarts: this.#restarts };
  }

  async close(): Promise<void> {
    this.#closed = true;
    const worker = this.#worker;
    if (worker !== undefined) {
      const closed = new Promise<void>((resolve) => {
        this.#onClosed = resolve;
      });
      worker.post({ type: "close" });
      let timer: ReturnType<typeof setTimeout> | undefined;
      const late = new Promise<void>((resolve) => {
        timer = setTimeout(resolve, CLOSE_MS);
      });
      await Promise.race([closed, late]);
      clearTimeout(timer);
    }
    this.#starting?.reject(abortError());
    this.#drop();
    for (const pending of this.#pending.values()) pending.reject(abortError());
    this.#pending.clear();
  }

  #start(options: EngineOptions): Promise<void> {
    const ready = new Promise<void>((resolve, reject) => {
      this.#starting = { resolve, reject };
      let worker: WorkerPort;
      try {
        worker = this.#makeWorker();
      } catch (error) {
        reject(noWorker(toWire(error).message));
        return;
      }
      this.#worker = worker;
      // What a worker that was replaced still says is of no interest.
      worker.listen((message) => worker === this.#worker && this.#hear(message, worker));
      worker.onError((message) => worker === this.#worker && this.#onError(message));
      worker.post({ type: "create", options });
    }).finally(() => {
      this.#starting = undefined;
    });
    this.#ready = ready;
    ready.catch(() => {
      if (this.#ready === ready) this.#ready = undefined;
    });
    return ready;
  }

  #hear(message: FromWorker, worker: WorkerPort): void {
    switch (message.type) {
      case "progress":
        this.#callbacks.onProgress(message.progress);
        break;
      case "ready":
        this.#starting?.resolve();
        break;
      case "failed":
        this.#starting?.reject(fromWire(message.error));
        break;
      case "result":
        this.#pending.get(message.id)?.resolve(message.value);
        break;
      case "error": {
        const pending = this.#pending.get(message.id);
        pending?.reject(fromWire(message.error, pending.signal));
        break;
      }
      case "event":
        this.#pending.get(message.id)?.onEvent?.(message.event);
        break;
      case "store":
        void this.#answerStore(message, worker);
        break;
      case "trap":
        this.#onTrap(message.message);
        break;
      case "closed":
        this.#onClosed?.();
        break;
    }
  }

  async #answerStore({ call, method, args }: Extract<FromWorker, { type: "store" }>, worker: WorkerPort) {
    try {
      const { store } = this.#callbacks;
      if (store === undefined) throw new MemoryR1Error("INTERNAL", "there is no store to call");
      worker.post({ type: "stored", call, value: await callStore(store, method, args) });
    } catch (error) {
      worker.post({ type: "storeFailed", call, error: toWire(error) });
    }
  }

  #onError(message: string): void {
    if (this.#starting === undefined) this.#onTrap(message);
    else this.#starting.reject(noWorker(message));
  }

  #onTrap(message: string): void {
    if (this.#starting !== undefined) {
      this.#starting.reject(trapError(message, "it could not start"));
      return;
    }
    this.#drop();
    const error = trapError(
      message,
      "it was started anew and nothing that was acknowledged is lost; try again",
    );
    const pending = [...this.#pending.values()];
    this.#pending.clear();
    if (!this.#closed) {
      this.#restarts += 1;
      this.#start(this.#options).catch(() => this.#drop());
    }
    for (const { reject } of pending) reject(error);
  }

  #drop(): void {
    this.#worker?.terminate();
    this.#worker = undefined;
    this.#ready = undefined;
  }
}

const BROKEN: ReadonlySet<string> = new Set(["INTERNAL", "DEVICE_LOST"]);

function noWorker(message: string): MemoryR1Error {
  return new MemoryR1Error(
    "NOT_REACHABLE",
    "the worker's script cannot be started; serve dist/worker.js beside the package, or use worker: false",
    { cause: message },
  );
}

function moduleWorker(): WorkerPort {
  const worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module", name: "memory-r1" });
  return {
    post: (message) => worker.postMessage(message),
    listen: (listener) => {
      worker.onmessage = (event: MessageEvent<FromWorker>) => listener(event.data);
    },
    onError: (listener) => {
      worker.onerror = (event) => listener(event.message || "the script could not be loaded");
      worker.onmessageerror = () => listener("a message could not be read");
    },
    terminate: () => worker.terminate(),
  };
}
