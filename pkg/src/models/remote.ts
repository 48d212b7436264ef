/** A model that comes over the network, by way of what this browser keeps. */

import { abortError, MemoryR1Error } from "../errors.js";
import { isCurrent, ModelCache } from "./cache.js";
import { type Arrived, download, type Pieces } from "./download.js";
import { type Bytes, noMemory, type Wanted } from "./integrity.js";
import { type ModelRecord, recordOf, wholeFiles } from "./kept.js";
import { type Network, PassingFailure } from "./network.js";
import type { Note, Tally } from "./progress.js";
import type { Folder } from "./source.js";
import { isWeights, LANGUAGE_MODEL, type Layout, pointedAt, type Survey, survey } from "./survey.js";

/** How long to wait for a server's word on whether a model that is kept is still the newest. */
const NEWS_MS = 5_000;
const READING: Note = { text: "Reading the model that this browser keeps" };

/**
 * All files of a model. Those that are kept and still the newest are not downloaded; where the network
 * fails, a model that is kept whole is good enough. The errors are those of `survey` and `download`.
 */
export async function loadRemote(
  folder: Folder,
  network: Network,
  tally: Tally,
  layout: Layout = LANGUAGE_MODEL,
): Promise<Map<string, Bytes>> {
  return new RemoteModel(folder, layout, network, tally, await ModelCache.open()).load();
}

class RemoteModel {
  readonly #folder: Folder;
  readonly #layout: Layout;
  readonly #network: Network;
  readonly #tally: Tally;
  /** Null where nothing can be kept, or no more. */
  #cache: ModelCache | null;

  constructor(folder: Folder, layout: Layout, network: Network, tally: Tally, cache: ModelCache | null) {
    const { token } = folder;
    const headers = token === null ? {} : { Authorization: `Bearer ${token}` };
    this.#folder = folder;
    this.#layout = layout;
    this.#network = { ...network, headers: { ...network.headers, ...headers } };
    this.#tally = tally;
    this.#cache = cache;
  }

  async load(): Promise<Map<string, Bytes>> {
    const { base } = this.#folder;
    const old = await this.#ask((cache) => recordOf(cache, base));
    const complete = old !== null && (await this.#isComplete(old)) ? old : null;
    const { files: wanted, bytes: known } = await this.#survey(complete);
    this.#tally.expect(wanted);
    // As long as the old files are all there, they are the model that is kept.
    if (complete === null) await this.#remember(wanted);
    const files = new Map<string, Bytes>();
    for (const file of wanted) {
      if (this.#network.signal?.aborted) throw abortError(this.#network.signal);
      const bytes = known.get(file.name) ?? (await this.#kept(file)) ?? (await this.#download(file));
      files.set(file.name, bytes);
      this.#tally.loaded(file.name, bytes.length);
    }
    for (const { name, sha256 } of wanted) {
      const bytes = known.get(name);
      if (bytes !== undefined) await this.#keep(name, bytes, sha256, undefined);
    }
    await this.#remember(wanted);
    // What other versions of the model left behind.
    for (const name of (await this.#ask((cache) => cache.folder(base)))?.keys() ?? []) {
      if (!files.has(name)) await this.#ask((cache) => cache.drop(base + name));
    }
    return files;
  }

  /** What the folder has by the server's word, or else by the record of a model that is kept whole. */
  async #survey(complete: ModelRecord | null): Promise<Survey> {
    if (complete === null) return survey(this.#folder, this.#network, this.#layout);
    const kept = { files: complete.files, bytes: new Map<string, Bytes>() };
    if (this.#folder.fixed) return kept;
    try {
      const idleMs = Math.min(NEWS_MS, this.#network.idleMs);
      return await survey(this.#folder, { ...this.#network, retries: 0, idleMs }, this.#layout);
    } catch (error) {
      if (error instanceof PassingFailure) return kept;
      throw error;
    }
  }

  async #isComplete({ base, files }: ModelRecord): Promise<boolean> {
    const whole = await this.#ask((cache) => wholeFiles(cache, base, files));
    return whole?.size === files.length;
  }

  async #kept(wanted: Wanted): Promise<Bytes | null> {
    const { name } = wanted;
    const url = this.#folder.base + name;
    const kept = await this.#ask((cache) => cache.look(url));
    if (kept === null || !isCurrent(kept, wanted)) return null;
    const bytes = await this.#ask((cache) => cache.read(url, name));
    if (bytes !== null) this.#tally.loaded(name, bytes.length, READING);
    return bytes;
  }

  async #download(wanted: Wanted): Promise<Bytes> {
    const { name } = wanted;
    const url = new URL(name, this.#folder.base);
    const promised = { ...wanted };
    if (isWeights(name) && wanted.sha256 === undefined) {
      Object.assign(promised, await pointedAt(this.#folder, name, this.#network));
    }
    const { bytes, sha256, etag } = await download(url, promised, {
      network: this.#network,
      pieces: this.#pieces(url.href, promised),
      // One copy on the disk is enough.
      cache: this.#cache === null ? "default" : "no-store",
      onLoaded: (loaded) => this.#tally.loaded(name, loaded),
    });
    await this.#keep(name, bytes, sha256, wanted.etag ?? etag ?? undefined);
    return bytes;
  }

  #pieces(url: string, { name, size, sha256 }: Wanted): Pieces | null {
    const cache = this.#cache;
    if (cache === null) return null;
    const drop = async () => {
      await cache.dropPieces(url).catch(() => {});
    };
    return {
      read: async (): Promise<Arrived | null> => {
        const pieces = (await this.#ask(() => cache.pieces(url))) ?? [];
        const [first, last] = [pieces[0], pieces.at(-1)];
        if (first === undefined || last === undefined) return null;
        const ofAnother = sha256 !== undefined && first.sha256 !== undefined && first.sha256 !== sha256;
        if (ofAnother || last.to > (size ?? last.to)) {
          await drop();
          return null;
        }
        const bytes = reserve(name, size ?? last.to);
        let loaded = 0;
        for (const piece of pieces) {
          const part = await cache.readPiece(piece);
          if (part === null) break;
          bytes.set(part, piece.from);
          loaded = piece.to;
        }
        return { bytes, loaded, etag: first.etag };
      },
      keep: async (from, bytes, etag) => {
        const kept = await this.#write(() => cache.keepPiece(url, from, bytes, { sha256, etag }));
        // What cannot become whole only takes the room that the memories need.
        if (!kept) await drop();
      },
      drop,
    };
  }

  async #keep(
    name: string,
    bytes: Bytes,
    sha256: string | undefined,
    etag: string | undefined,
  ): Promise<void> {
    if (sha256 === undefined) return;
    await this.#write((cache) => cache.keep(this.#folder.base + name, bytes, sha256, etag));
  }

  async #remember(files: Wanted[]): Promise<void> {
    const { model, base } = this.#folder;
    const record: ModelRecord = { model, base, files, lastUsed: new Date().toISOString() };
    await this.#write((cache) => cache.write(base, record));
  }

  /** Asks the cache; null where there is none, or it fails. */
  async #ask<T>(what: (cache: ModelCache) => Promise<T>): Promise<T | null> {
    if (this.#cache === null) return null;
    try {
      return await what(this.#cache);
    } catch (error) {
      if (error instanceof MemoryR1Error) throw error;
      return null;
    }
  }

  /** Writes to the cache; false where it cannot be written to, and it is given up then. */
  async #write(what: (cache: ModelCache) => Promise<void>): Promise<boolean> {
    const cache = this.#cache;
    if (cache === null) return false;
    try {
      await what(cache);
      return true;
    } catch (error) {
      this.#cache = null;
      this.#tally.keepSaying(await notKept(error, this.#tally.total()));
      return false;
    }
  }
}

/** What to say of a model that is used, but not kept. */
async function notKept(error: unknown, needed: number): Promise<Note> {
  const then = "It is used without being kept, and is downloaded again next time";
  if (!(error instanceof Error) || error.name !== "QuotaExceededError") {
    return { code: "STORE_FAILED", text: `This browser cannot keep the model: ${String(error)}. ${then}` };
  }
  const { quota, usage } = (await globalThis.navigator?.storage?.estimate?.().catch(() => null)) ?? {};
  const free =
    quota === undefined || usage === undefined
      ? ""
      : `, and has ${megabytes(Math.max(0, quota - usage))} left`;
  const full = `This browser's storage is full: the model needs ${megabytes(needed)}${free}`;
  return { code: "QUOTA_EXCEEDED", text: `${full}. ${then}; models.delete() makes room` };
}

function megabytes(bytes: number): string {
  return `${(bytes / 1e6).toFixed(1)} MB`;
}

function reserve(name: string, size: number): Bytes {
  try {
    return new Uint8Array(size);
  } catch (error) {
    throw noMemory(name, size, error);
  }
}
