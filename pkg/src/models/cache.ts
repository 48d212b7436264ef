/** The files that this browser keeps, in Cache Storage. Nothing here knows of models. */

import { type Bytes, brokenFile, noMemory, sha256, type Wanted } from "./integrity.js";

/** The cache's name. */
export const CACHE_NAME = "memory-r1-models";

/** Keys that are no URLs of files. A name in `.invalid` belongs to nobody. */
const OWN = "https://memory-r1.invalid/";
const HASH = "x-memory-r1-sha256";
const ETAG = "x-memory-r1-etag";
const SIZE = "x-memory-r1-size";
/** The one file of a folder that lies a folder deeper; others there belong to other folders. */
const DEEPER = "1_Pooling/config.json";

/** What is known of a file that is kept. */
export interface KeptFile {
  size: number;
  sha256: string;
  etag: string | undefined;
}

/** A part of a file that is kept until the whole is there. */
export interface Piece {
  from: number;
  to: number;
  sha256: string | undefined;
  etag: string | null;
  key: string;
}

/**
 * Files by their URLs, each whole and with its hash; pieces of files that are on their way; and small
 * records of JSON. The methods that write throw what Cache Storage throws.
 */
export class ModelCache {
  readonly #cache: Cache;

  private constructor(cache: Cache) {
    this.#cache = cache;
  }

  /** Null where there is no Cache Storage, or where the browser denies it. */
  static async open(): Promise<ModelCache | null> {
    const { caches, crypto } = globalThis as { caches?: CacheStorage; crypto?: Crypto };
    if (caches === undefined || crypto?.subtle === undefined) return null;
    try {
      return new ModelCache(await caches.open(CACHE_NAME));
    } catch {
      return null;
    }
  }

  /** Removes every file, piece and record. */
  static async clear(): Promise<void> {
    await (globalThis as { caches?: CacheStorage }).caches?.delete(CACHE_NAME);
  }

  /** What is known of a file, without reading it. */
  async look(url: string): Promise<KeptFile | null> {
    const { headers } = (await this.#cache.match(url)) ?? {};
    const hash = headers?.get(HASH);
    const size = Number(headers?.get(SIZE));
    return hash ? { size, sha256: hash, etag: headers?.get(ETAG) ?? undefined } : null;
  }

  /**
   * A file, checked again; null where it is not there. One that changed while it was kept is removed,
   * and is `MODEL_INTEGRITY`.
   */
  async read(url: string, name: string): Promise<Bytes | null> {
    const response = await this.#cache.match(url);
    if (response === undefined) return null;
    const bytes = await response.arrayBuffer().then(
      (buffer) => new Uint8Array(buffer),
      (error: unknown) => {
        if (error instanceof RangeError) throw noMemory(name, Number(response.headers.get(SIZE)), error);
        // The browser lost what it kept.
        return null;
      },
    );
    if (bytes !== null && (await sha256(bytes)) === response.headers.get(HASH)) return bytes;
    await this.#cache.delete(url);
    if (bytes === null) return null;
    throw brokenFile(name, "was damaged in this browser's cache and is removed from it");
  }

  /** Keeps a whole file, whose hash the caller has checked, instead of its pieces. */
  async keep(url: string, bytes: Bytes, hash: string, etag: string | undefined): Promise<void> {
    const put = () => this.#put(url, bytes, { sha256: hash, etag });
    try {
      await put();
    } catch {
      // The pieces take the room of the whole.
      await this.dropPieces(url);
      await put();
    }
    await this.dropPieces(url);
  }

  /** Removes a file and its pieces. */
  async drop(url: string): Promise<void> {
    await this.dropPieces(url);
    await this.#cache.delete(url);
  }

  /** Keeps a part of a file. */
  async keepPiece(
    url: string,
    from: number,
    bytes: Bytes,
    known: { sha256: string | undefined; etag: string | null },
  ): Promise<void> {
    await this.#put(`${pieceKey(url)}?from=${from}&to=${from + bytes.length}`, bytes, known);
  }

  /** The pieces of a file from its start on, without a gap and of one version. */
  async pieces(url: string): Promise<Piece[]> {
    const requests = await this.#cache.keys(pieceKey(url), { ignoreSearch: true });
    const all = requests.flatMap(({ url: key }) => pieceBounds(key) ?? []);
    all.sort((a, b) => a.from - b.from || b.to - a.to);
    const found: Piece[] = [];
    for (const { key, from, to } of all) {
      if (from !== (found.at(-1)?.to ?? 0)) continue;
      const { headers } = (await this.#cache.match(key)) ?? {};
      if (headers === undefined) break;
      const piece = { key, from, to, sha256: headers.get(HASH) ?? undefined, etag: headers.get(ETAG) };
      const first = found[0] ?? piece;
      if (piece.sha256 !== first.sha256 || piece.etag !== first.etag) break;
      found.push(piece);
    }
    return found;
  }

  /** The bytes of a piece; null where they are gone. */
  async readPiece({ key, from, to }: Piece): Promise<Bytes | null> {
    try {
      const buffer = await (await this.#cache.match(key))?.arrayBuffer();
      return buffer?.byteLength === to - from ? new Uint8Array(buffer) : null;
    } catch {
      return null;
    }
  }

  async dropPieces(url: string): Promise<void> {
    await this.#cache.delete(pieceKey(url), { ignoreSearch: true });
  }

  /** The files of a folder of which anything is kept, whole or in pieces: how many bytes, by their names. */
  async folder(base: string): Promise<Map<string, number>> {
    const bytes = new Map<string, number>();
    for (const { url: key } of await this.#cache.keys()) {
      const piece = pieceBounds(key);
      const url = piece?.url ?? key;
      const name = url.slice(base.length);
      if (!url.startsWith(base) || (name.includes("/") && name !== DEEPER)) continue;
      const size = piece === null ? ((await this.look(url))?.size ?? 0) : piece.to - piece.from;
      bytes.set(name, (bytes.get(name) ?? 0) + size);
    }
    return bytes;
  }

  /** Keeps a small value under a name. */
  async write(name: string, value: unknown): Promise<void> {
    await this.#cache.put(recordKey(name), Response.json(value));
  }

  /** The values that are kept under names. One that cannot be read is left out. */
  async records(): Promise<unknown[]> {
    const values: unknown[] = [];
    for (const { url } of await this.#cache.keys()) {
      if (!url.startsWith(recordKey(""))) continue;
      const value: unknown = await (await this.#cache.match(url))?.json().catch(() => undefined);
      if (value !== undefined) values.push(value);
    }
    return values;
  }

  async forget(name: string): Promise<void> {
    await this.#cache.delete(recordKey(name));
  }

  async #put(
    key: string,
    bytes: Bytes,
    known: { sha256: string | undefined; etag: string | null | undefined },
  ): Promise<void> {
    const headers = new Headers({ "content-type": "application/octet-stream", [SIZE]: String(bytes.length) });
    if (known.sha256 !== undefined) headers.set(HASH, known.sha256);
    if (known.etag !== undefined && known.etag !== null) headers.set(ETAG, known.etag);
    await this.#cache.put(key, new Response(bytes, { headers }));
  }
}

/** Whether a file that is kept is the one that is wanted, as far as anybody can tell. */
export function isCurrent(kept: KeptFile, wanted: Wanted): boolean {
  if (wanted.sha256 !== undefined) return kept.sha256 === wanted.sha256;
  if (wanted.size !== undefined && kept.size !== wanted.size) return false;
  return wanted.etag === undefined || kept.etag === undefined || bare(kept.etag) === bare(wanted.etag);
}

/** An `ETag` may be weakened on the way by whoever packs the answer. */
function bare(etag: string): string {
  return etag.replace(/^W\//, "");
}

function recordKey(name: string): string {
  return `${OWN}record/${encodeURIComponent(name)}`;
}

function pieceKey(url: string): string {
  return `${OWN}piece/${encodeURIComponent(url)}`;
}

function pieceBounds(key: string): { key: string; url: string; from: number; to: number } | null {
  const parts = /^[^?]*\/piece\/([^?/]*)\?from=(\d+)&to=(\d+)$/.exec(key.startsWith(OWN) ? key : "");
  if (parts === null) return null;
  return { key, url: decodeURIComponent(parts[1] ?? ""), from: Number(parts[2]), to: Number(parts[3]) };
}
