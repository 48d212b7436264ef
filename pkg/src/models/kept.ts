/** Which models this browser keeps: `models.list()`, `models.delete()`, `models.clear()`. */

import { MemoryR1Error } from "../errors.js";
import type { KeptModel } from "../types.js";
import { isCurrent, ModelCache } from "./cache.js";
import type { Wanted } from "./integrity.js";
import { folderOf, readSource } from "./source.js";

/** A model of which something is kept. */
export interface ModelRecord {
  model: string;
  /** The URL of its folder; the record's name. */
  base: string;
  /** All files that it needs. */
  files: Wanted[];
  /** RFC 3339. */
  lastUsed: string;
}

/** The models that were downloaded from a URL or the hub and are kept in this browser. */
export interface Models {
  /** All of them, the one used last first; `[]` where there is no Cache Storage. */
  list(): Promise<KeptModel[]>;
  /**
   * Removes a model by its name as `create` takes it or {@link list} gives it; whether there was one.
   * A memory that runs is not disturbed: it has its model in its own memory.
   */
  delete(model: string | URL): Promise<boolean>;
  /** Removes all of them. */
  clear(): Promise<void>;
}

export const models: Models = {
  list: () =>
    asked(async () => {
      const cache = await ModelCache.open();
      if (cache === null) return [];
      const kept: KeptModel[] = [];
      for (const { model, base, files, lastUsed } of await records(cache)) {
        const sizes = [...(await cache.folder(base)).values()];
        const whole = await wholeFiles(cache, base, files);
        kept.push({
          model,
          bytes: sizes.reduce((sum, one) => sum + one, 0),
          files: whole.size,
          complete: whole.size === files.length,
          lastUsed,
        });
      }
      return kept.sort((a, b) => b.lastUsed.localeCompare(a.lastUsed));
    }),

  delete: (model) =>
    asked(async () => {
      const source = readSource(model);
      const cache = await ModelCache.open();
      if (cache === null || (source.kind !== "url" && source.kind !== "hub")) return false;
      const { model: name } = folderOf(source);
      const found = (await records(cache)).filter((record) => record.model === name);
      for (const { base } of found) {
        for (const file of (await cache.folder(base)).keys()) await cache.drop(base + file);
        await cache.forget(base);
      }
      return found.length > 0;
    }),

  clear: () => asked(() => ModelCache.clear()),
};

/** The record of a folder's model; null where there is none. */
export async function recordOf(cache: ModelCache, base: string): Promise<ModelRecord | null> {
  return (await records(cache)).find((record) => record.base === base) ?? null;
}

/** The sizes of those files that are kept whole, by their names. */
export async function wholeFiles(
  cache: ModelCache,
  base: string,
  files: readonly Wanted[],
): Promise<Map<string, number>> {
  const whole = new Map<string, number>();
  for (const file of files) {
    const kept = await cache.look(base + file.name);
    if (kept !== null && isCurrent(kept, file)) whole.set(file.name, kept.size);
  }
  return whole;
}

/** A browser that cannot do what it is asked to is `STORE_FAILED`. */
async function asked<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof MemoryR1Error) throw error;
    throw new MemoryR1Error("STORE_FAILED", "this browser's Cache Storage does not answer; try again", {
      cause: error,
    });
  }
}

async function records(cache: ModelCache): Promise<ModelRecord[]> {
  return (await cache.records()).filter(isRecord);
}

/** What another version of this package wrote is not understood, and left alone. */
function isRecord(value: unknown): value is ModelRecord {
  const { model, base, files, lastUsed } = (value ?? {}) as Partial<Record<keyof ModelRecord, unknown>>;
  if ([model, base, lastUsed].some((text) => typeof text !== "string")) return false;
  return (
    Array.isArray(files) && files.every((file: Partial<Wanted> | null) => typeof file?.name === "string")
  );
}
