/** A store as the engine calls it, and the one for `store: "memory"` beside a worker. */

import { MemoryR1Error } from "./errors.js";
import type { StoreMethod } from "./protocol.js";
import type { Scope, Store, StoredEvent } from "./types.js";

/** Calls one method of a caller's store. */
export async function callStore(store: Store, method: StoreMethod, args: unknown[]): Promise<unknown> {
  if (method === "close") return store.close?.();
  const own = (store as unknown as Record<string, unknown>)[method];
  if (typeof own !== "function") {
    throw new MemoryR1Error("INVALID_ARGUMENT", `the store has no method ${method}; see the Store interface`);
  }
  return Reflect.apply(own, store, args);
}

/**
 * Journals in this page's memory. It lives beside the worker and not in it, so that a worker
 * that is replaced loses nothing.
 */
export class MemoryStore implements Store {
  readonly #journals = new Map<string, { scope: Scope; events: StoredEvent[] }>();

  scopes(): Scope[] {
    return [...this.#journals.keys()].sort().flatMap((key) => this.#journals.get(key)?.scope ?? []);
  }

  read(scope: Scope): StoredEvent[] {
    return structuredClone(this.#journals.get(keyOf(scope))?.events ?? []);
  }

  append(scope: Scope, expected: number, events: StoredEvent[]): void {
    const journal = this.#expect(scope, expected);
    if (events.length === 0) return;
    this.#journals.set(keyOf(scope), {
      scope,
      events: [...(journal?.events ?? []), ...structuredClone(events)],
    });
  }

  rewrite(scope: Scope, expected: number, events: StoredEvent[]): void {
    this.#expect(scope, expected);
    this.#journals.set(keyOf(scope), { scope, events: structuredClone(events) });
  }

  remove(scope: Scope): boolean {
    return this.#journals.delete(keyOf(scope));
  }

  #expect(scope: Scope, expected: number) {
    const journal = this.#journals.get(keyOf(scope));
    const last = journal?.events.at(-1)?.seq ?? 0;
    if (last !== expected) {
      throw new MemoryR1Error("STORE_CONFLICT", `the journal ends at event ${last}, not ${expected}`);
    }
    return journal;
  }
}

function keyOf(scope: Scope): string {
  return JSON.stringify([scope.userId ?? null, scope.agentId ?? null, scope.runId ?? null]);
}
