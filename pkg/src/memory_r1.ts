/// <reference lib="esnext.disposable" preserve="true" />
import type { Backend, CallOptions, Method } from "./backend.js";
import * as convert from "./convert.js";
import { connect, isPersisted } from "./create.js";
import { abortError, invalid, MemoryR1Error } from "./errors.js";
import type {
  AddOptions,
  AddProgress,
  AddResult,
  Answer,
  AnswerChunk,
  AnswerOptions,
  BareAnswer,
  BareDecision,
  BareMemory,
  Cancellable,
  ChangeList,
  CreateOptions,
  DeleteOptions,
  GetAllOptions,
  HistoryEntry,
  ImportResult,
  Info,
  Memory,
  MemoryList,
  Messages,
  ScopeInput,
  ScoredMemory,
  SearchOptions,
  When,
} from "./types.js";

/** The Memory Manager alone: it decides, and keeps nothing. */
export interface Manager {
  /** One operation for each fact, each compared with the memories as they are given. */
  decide(
    facts: readonly string[],
    memories: readonly BareMemory[],
    options?: Cancellable,
  ): Promise<{ results: BareDecision[] }>;
}

/** The Answer Agent alone. */
export interface AnswerAgent {
  /** Answers from these memories: those that are related to the question are shown to it. */
  answer(question: string, memories: readonly BareMemory[], options?: Cancellable): Promise<BareAnswer>;
}

/**
 * A memory that learns what to keep.
 *
 * ```ts
 * const memory = await MemoryR1.create();
 * await memory.add("I adopted a dog, Scout", { userId: "caroline" });
 * const { answer } = await memory.answer("What is my dog's name?", { userId: "caroline" });
 * await memory.close();
 * ```
 */
export class MemoryR1 {
  /** The Memory Manager, bare. */
  readonly manager: Manager;
  /** The Answer Agent, bare. */
  readonly answerAgent: AnswerAgent;
  readonly #backend: Backend;
  readonly #storeKind: Info["store"]["kind"];
  #closed = false;

  private constructor(backend: Backend, storeKind: Info["store"]["kind"]) {
    this.#backend = backend;
    this.#storeKind = storeKind;
    this.manager = {
      decide: (facts, memories, options = {}) =>
        this.#call(
          "decide",
          () => ({ facts: convert.facts(facts), memories: convert.memories(memories) }),
          options,
        ),
    };
    this.answerAgent = {
      answer: async (question, memories, options = {}) => {
        const wire = () => ({
          question: convert.text(question, "the question"),
          memories: convert.memories(memories),
        });
        const found = await this.#call<{ answer: string; used: number[] }>("answerFrom", wire, options);
        return { answer: found.answer, memories: found.used.flatMap((place) => memories[place] ?? []) };
      },
    };
  }

  /** Loads the model and opens the store. Fetches only what it was told to. */
  static async create(options: CreateOptions = {}): Promise<MemoryR1> {
    const { backend, storeKind } = await connect(options);
    return new MemoryR1(backend, storeKind);
  }

  /** Decides what to remember of what was said, and remembers it, all or nothing. */
  add(messages: Messages, options: AddOptions): Promise<AddResult> {
    const { onDecision, onEvent } = options ?? {};
    const hear = (event: AddProgress) => {
      onEvent?.(event);
      if (event.type === "decision") onDecision?.(event.decision, event.index, event.total);
    };
    return this.#call(
      "add",
      () => ({
        scope: convert.scope(options),
        turns: convert.turns(messages, options.timestamp),
        context: options.context?.length ? convert.turns(options.context, options.timestamp) : [],
        metadata: convert.metadata(options.metadata),
        infer: options.infer ?? true,
        extractFrom: convert.extractFrom(options.extractFrom),
      }),
      options,
      onDecision || onEvent ? (event) => hear(event as AddProgress) : undefined,
    );
  }

  /** Answers from what is remembered; says that it does not know when nothing helps. */
  answer(question: string, options: AnswerOptions): Promise<Answer> {
    return this.#call("answer", () => answerArguments(question, options), options);
  }

  /** The same, piece by piece; the last chunk is `{ type: "done", answer, memories, candidates }`. */
  async *answerStream(
    question: string,
    options: AnswerOptions,
  ): AsyncGenerator<AnswerChunk, void, undefined> {
    const stop = new AbortController();
    const forward = () => stop.abort(abortError(options?.signal));
    if (options?.signal?.aborted) forward();
    options?.signal?.addEventListener("abort", forward, { once: true });

    const ready: AnswerChunk[] = [];
    let settled: { error?: unknown } | undefined;
    let wake = () => {};
    this.#call<Answer>(
      "answer",
      () => answerArguments(question, options),
      { signal: stop.signal },
      (event) => {
        ready.push({ type: "text", text: (event as { text: string }).text });
        wake();
      },
    )
      .then(
        (answer) => {
          ready.push({ type: "done", text: "", ...answer });
          settled = {};
        },
        (error: unknown) => {
          settled = { error };
        },
      )
      .finally(() => wake());

    try {
      for (;;) {
        // An answer keeps nothing, so one that ended before the abort was heard is cancelled all the same.
        if (stop.signal.aborted) {
          ready.length = 0;
          if (settled !== undefined) throw stop.signal.reason;
        }
        const chunk = ready.shift();
        if (chunk !== undefined) {
          yield chunk;
        } else if (settled !== undefined) {
          if ("error" in settled) throw settled.error;
          return;
        } else {
          await new Promise<void>((resolve) => {
            wake = resolve;
          });
        }
      }
    } finally {
      options?.signal?.removeEventListener("abort", forward);
      // A reader that stopped early needs no more of the answer.
      if (settled === undefined) stop.abort();
    }
  }

  /** The memories that match, best first, of every scope that agrees with the ids given. */
  search(query: string, options: SearchOptions): Promise<MemoryList<ScoredMemory>> {
    return this.#call(
      "search",
      () => ({
        query: convert.text(query, "the query"),
        scope: convert.scope(options, options.filters),
        topK: convert.limit(options),
        threshold: convert.unit(options.threshold, "threshold"),
        explain: options.explain ?? false,
      }),
      options,
    );
  }

  /** One memory; `NOT_FOUND` where there is none of this id. */
  get(id: string): Promise<Memory> {
    return this.#call("get", () => ({ id: convert.memoryId(id) }));
  }

  /** All memories of every scope that agrees with the ids given, in the order of their creation. */
  getAll(options: GetAllOptions): Promise<MemoryList> {
    return this.#call(
      "getAll",
      () => ({ scope: convert.scope(options, options.filters), topK: convert.limit(options) }),
      options,
    );
  }

  /** Replaces a memory's text by hand; its history keeps the old one. */
  update(id: string, text: string): Promise<Memory> {
    return this.#call("update", () => ({ id: convert.memoryId(id), text: convert.text(text, "the text") }));
  }

  /** Takes a memory out of the bank; with `erase`, out of its history too, for ever. */
  delete(id: string, options: DeleteOptions = {}): Promise<void> {
    return this.#call("delete", () => ({ id: convert.memoryId(id), erase: options.erase ?? false }), options);
  }

  /** Erases every memory of every scope that agrees with the ids given, for ever. */
  deleteAll(scope: ScopeInput): Promise<void> {
    return this.#call("deleteAll", () => ({ scope: convert.scope(scope) }));
  }

  /** Every change of one memory, oldest first. */
  history(id: string): Promise<HistoryEntry[]> {
    return this.#call("history", () => ({ id: convert.memoryId(id) }));
  }

  /** Erases everything in this store, for ever. */
  reset(): Promise<void> {
    return this.#call("reset", () => ({}));
  }

  /**
   * Takes back the latest change of exactly this scope; its events, none where nothing is left
   * to take back. What was erased does not come back.
   */
  undo(scope: ScopeInput): Promise<{ results: HistoryEntry[] }> {
    return this.#call("undo", () => ({ scope: convert.scope(scope) }));
  }

  /** The memories of exactly this scope as they were at a time (text or `Date`) or sequence number. */
  asOf(scope: ScopeInput, when: When): Promise<MemoryList> {
    return this.#call("asOf", () => ({ scope: convert.scope(scope), when: convert.when(when) }));
  }

  /** What changed between two points of the journal of exactly this scope. */
  diff(scope: ScopeInput, a: When, b: When): Promise<ChangeList> {
    return this.#call("diff", () => ({
      scope: convert.scope(scope),
      a: convert.when(a),
      b: convert.when(b),
    }));
  }

  /**
   * The journals of every scope that agrees (all of them without `scope`), as JSON lines;
   * `NOT_FOUND` where there is none.
   */
  export(scope?: ScopeInput): Promise<string> {
    return this.#call("export", () => ({ scope: convert.optionalScope(scope) }));
  }

  /** Reads an export; the same one twice changes nothing, one that diverges is `STORE_CONFLICT`. */
  import(data: string | Blob): Promise<ImportResult> {
    const read = typeof data === "string" ? Promise.resolve(data) : blobText(data);
    return read.then((text) => this.#call("import", () => ({ data: convert.wellFormed(text) })));
  }

  /** What runs, where and why. */
  async info(): Promise<Info> {
    const own = await this.#call<Omit<Info, "worker" | "restarts" | "store"> & { name: string }>(
      "info",
      () => ({}),
    );
    const { name, ...rest } = own;
    const kind = this.#storeKind;
    const persisted = kind === "indexeddb" ? await isPersisted() : null;
    return { ...rest, store: { kind, name, persisted }, ...this.#backend.facts() };
  }

  /** Gives back the worker, the model's memory and the store. What runs is cancelled. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#backend.close();
  }

  /** `using` and `await using` close it. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /**
   * Not for users: traps the engine as a defect would. It works only after
   * `create({ __test: true })`, for the tests of the worker's replacement.
   */
  __panic(): Promise<never> {
    return this.#call("panic", () => ({}));
  }

  /** Not for users: what the package's own measurements ask the engine, as {@link __panic}. */
  __measure(asked: Record<string, unknown>): Promise<Record<string, unknown>> {
    return this.#call("measure", () => asked);
  }

  async #call<T>(
    method: Method,
    args: () => unknown,
    options?: Cancellable,
    onEvent?: CallOptions["onEvent"],
  ): Promise<T> {
    if (this.#closed) throw new MemoryR1Error("INVALID_ARGUMENT", "this memory is closed; create another");
    const signal = options?.signal;
    if (signal !== undefined && !(signal instanceof AbortSignal))
      throw invalid("signal must be an AbortSignal");
    const plain = args();
    if (signal?.aborted) throw abortError(signal);
    return (await this.#backend.call(method, plain, { signal, onEvent })) as T;
  }
}

function answerArguments(question: string, options: AnswerOptions): unknown {
  return {
    question: convert.text(question, "the question"),
    scope: convert.scope(options),
    topK: convert.limit(options),
  };
}

async function blobText(data: unknown): Promise<string> {
  if (data instanceof Blob) return data.text();
  throw invalid("import takes the text of an export, or a Blob with it");
}
