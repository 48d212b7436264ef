/** One file, however often the connection is cut. */

import { MemoryR1Error } from "../errors.js";
import { asSha256, type Bytes, brokenFile, noMemory, sha256, type Wanted, wrongSize } from "./integrity.js";
import {
  endedEarly,
  leastLength,
  type Network,
  PassingFailure,
  request,
  wholeNumber,
  withRetries,
} from "./network.js";

/** What came of a file so far. */
export interface Arrived {
  /** At least `loaded` long. */
  bytes: Bytes;
  loaded: number;
  /** The `ETag` of the answer that it came with. */
  etag: string | null;
}

/** Where what has come of a file is kept for another session. Nothing here throws. */
export interface Pieces {
  /** What is there of the file that is wanted. */
  read(): Promise<Arrived | null>;
  keep(from: number, bytes: Bytes, etag: string | null): Promise<void>;
  drop(): Promise<void>;
}

/** A whole file. */
export interface Downloaded {
  bytes: Bytes;
  /** Undefined where nobody needs it, or it could not be computed. */
  sha256: string | undefined;
  etag: string | null;
}

/** How a file is downloaded. */
export interface Options {
  network: Network;
  /** Without them what has come is kept for this call only. */
  pieces: Pieces | null;
  /** What the browser's own cache does with the answer. */
  cache: RequestCache;
  /** Told how many bytes are there; fewer than before where the file began anew. */
  onLoaded(loaded: number): void;
}

/** How much comes before it is kept. */
export const PIECE_BYTES = 8 * 2 ** 20;

/**
 * A file, whole and checked. After a cut, in this call or an earlier one, only the rest is asked for.
 *
 * `MODEL_INTEGRITY`: it is not there, or has another length or hash than promised; what has come of
 * it is dropped then. `NOT_REACHABLE`: it did not come, and what has come is kept. `QUOTA_EXCEEDED`:
 * there is no memory for it. Aborting keeps what has come, too.
 */
export async function download(url: URL, wanted: Wanted, options: Options): Promise<Downloaded> {
  const download = new Download(url, wanted, options);
  try {
    return await download.run();
  } catch (error) {
    if (error instanceof MemoryR1Error && error.code === "MODEL_INTEGRITY") await options.pieces?.drop();
    throw error;
  }
}

class Download {
  readonly #url: URL;
  readonly #options: Options;
  readonly #wanted: Wanted;
  #bytes: Bytes = new Uint8Array(0);
  #loaded = 0;
  /** How much of it is in pieces. */
  #kept = 0;
  #etag: string | null = null;
  #mayUseIfRange = true;

  constructor(url: URL, wanted: Wanted, options: Options) {
    this.#url = url;
    this.#options = options;
    // An answer may tell more than was known.
    this.#wanted = { ...wanted };
  }

  async run(): Promise<Downloaded> {
    const { network, pieces, onLoaded } = this.#options;
    const arrived = (await pieces?.read()) ?? null;
    if (arrived !== null) {
      this.#bytes = arrived.bytes;
      this.#loaded = this.#kept = arrived.loaded;
      this.#etag = arrived.etag;
      if (!this.#canGoOn()) await this.#beginAnew();
      onLoaded(this.#loaded);
    }
    const { size, sha256: hash } = this.#wanted;
    // All of it may be there, if the page was closed just before it was put together.
    if (this.#loaded === 0 || this.#loaded !== size || hash === undefined) {
      await withRetries(
        network,
        () => this.#attempt(),
        () => this.#loaded,
      );
    }
    return this.#checked();
  }

  async #attempt(): Promise<void> {
    if (this.#loaded > 0 && !this.#canGoOn()) await this.#beginAnew();
    const headers: Record<string, string> = {};
    if (this.#loaded > 0) headers.Range = `bytes=${this.#loaded}-`;
    const etag = this.#loaded > 0 && this.#mayUseIfRange && isStrong(this.#etag) ? this.#etag : null;
    if (etag !== null) headers["If-Range"] = etag;
    const { network, cache } = this.#options;
    let answered = false;
    try {
      const there = await request(this.#url, { headers, cache }, network, async (response, heard) => {
        answered = true;
        await this.#take(response, heard, etag !== null);
        return true;
      });
      if (there === null) throw brokenFile(this.#wanted.name, `is missing: ${this.#url.href} is not there`);
    } catch (error) {
      // A server of another origin need not allow If-Range, and the browser does not say why it failed.
      const refused = error instanceof PassingFailure && error.status === undefined && !answered;
      if (etag === null || !refused) throw error;
      this.#mayUseIfRange = false;
      await this.#attempt();
    }
  }

  /** Takes an answer in; a {@link PassingFailure} where the rest has to be asked for again. */
  async #take(response: Response, heard: () => void, ifRange: boolean): Promise<void> {
    const { headers, status } = response;
    const range = contentRange(headers);
    if (status === 416) return this.#onNothingLeft(range);
    if (status === 206) {
      if (!this.#continues(headers, range, ifRange)) {
        await this.#beginAnew();
        throw this.#passing("answered with another part");
      }
    } else {
      if (this.#loaded > 0) await this.#beginAnew();
      this.#etag = headers.get("etag");
    }
    this.#wanted.sha256 ??= asSha256(headers.get("x-linked-etag"));
    this.#wanted.size ??= range?.total ?? wholeNumber(headers, "x-linked-size");
    const { name, size } = this.#wanted;
    if (range?.total !== undefined && range.total !== size) throw wrongSize(name, range.total, size ?? 0);
    const least = this.#loaded + leastLength(headers);
    try {
      this.#reserve(size ?? least);
      await this.#read(response, heard);
      this.#expectWhole(least);
    } catch (error) {
      await this.#keep(this.#loaded);
      throw error;
    }
  }

  async #read(response: Response, heard: () => void): Promise<void> {
    const { name, size } = this.#wanted;
    const reader = response.body?.getReader();
    for (;;) {
      const { done, value } = (await reader?.read()) ?? { done: true, value: undefined };
      if (done) return;
      heard();
      if (size !== undefined && this.#loaded + value.length > size) {
        throw brokenFile(name, `has more than the ${size} bytes that it should have`);
      }
      this.#reserve(this.#loaded + value.length);
      this.#bytes.set(value, this.#loaded);
      this.#loaded += value.length;
      this.#options.onLoaded(this.#loaded);
      while (this.#loaded - this.#kept >= PIECE_BYTES) await this.#keep(this.#kept + PIECE_BYTES);
    }
  }

  /** An answer that ended may have ended too early. */
  #expectWhole(least: number): void {
    const { name, size } = this.#wanted;
    if (this.#loaded < least) throw endedEarly(this.#url, this.#loaded, least);
    if (size !== undefined && this.#loaded < size) {
      // The server means that this was all. It is asked for more, and may know better then.
      throw new PassingFailure("MODEL_INTEGRITY", wrongSize(name, this.#loaded, size).message);
    }
  }

  /** 416: the server has no byte after those that are here. */
  async #onNothingLeft(range: ContentRange | null): Promise<void> {
    const { name, size } = this.#wanted;
    const total = range?.total;
    if (total !== undefined && size !== undefined && total !== size) throw wrongSize(name, total, size);
    if (total === this.#loaded) return;
    await this.#beginAnew();
    throw this.#passing("has nothing after what came of it");
  }

  /** Whether a 206 goes on where this file ends, with the same file. */
  #continues(headers: Headers, range: ContentRange | null, ifRange: boolean): boolean {
    if (range !== null && range.from !== this.#loaded) return false;
    if (this.#loaded === 0 || this.#wanted.sha256 !== undefined) return true;
    if (range === null) return false;
    return ifRange || (isStrong(this.#etag) && headers.get("etag") === this.#etag);
  }

  /** Whether the rest of the file can be told from the rest of another. */
  #canGoOn(): boolean {
    return isStrong(this.#etag) || this.#wanted.sha256 !== undefined;
  }

  async #beginAnew(): Promise<void> {
    this.#loaded = this.#kept = 0;
    this.#etag = null;
    await this.#options.pieces?.drop();
  }

  async #keep(to: number): Promise<void> {
    const from = this.#kept;
    if (to === from) return;
    this.#kept = to;
    if (this.#canGoOn()) await this.#options.pieces?.keep(from, this.#bytes.subarray(from, to), this.#etag);
  }

  #reserve(size: number): void {
    if (size <= this.#bytes.length) return;
    const known = this.#wanted.size;
    try {
      const larger = new Uint8Array(known ?? Math.max(size, 2 * this.#bytes.length, 65_536));
      larger.set(this.#bytes.subarray(0, this.#loaded));
      this.#bytes = larger;
    } catch (error) {
      throw noMemory(this.#wanted.name, size, error);
    }
  }

  #passing(why: string): PassingFailure {
    return new PassingFailure("NOT_REACHABLE", `the model cannot be downloaded: ${this.#url.href} ${why}`);
  }

  async #checked(): Promise<Downloaded> {
    const { name, sha256: right } = this.#wanted;
    const bytes = this.#loaded === this.#bytes.length ? this.#bytes : this.#bytes.slice(0, this.#loaded);
    const isUsed = right !== undefined || this.#options.pieces !== null;
    const hash = isUsed ? await sha256(bytes) : undefined;
    if (right !== undefined && hash !== undefined && hash !== right) {
      throw brokenFile(name, `is damaged: its sha256 is ${hash} instead of ${right}`);
    }
    return { bytes, sha256: hash, etag: this.#etag };
  }
}

interface ContentRange {
  /** The first byte; undefined in an answer of 416. */
  from: number | undefined;
  total: number | undefined;
}

/** `Content-Range`; null where there is none, or another origin hides it. */
function contentRange(headers: Headers): ContentRange | null {
  const parts = /^bytes (?:(\d+)-\d+|\*)\/(\d+|\*)$/.exec(headers.get("content-range") ?? "");
  if (parts === null) return null;
  const number = (text: string | undefined) =>
    text === undefined || text === "*" ? undefined : Number(text);
  return { from: number(parts[1]), total: number(parts[2]) };
}

/** Only a strong `ETag` names the very bytes. */
function isStrong(etag: string | null): etag is string {
  return etag?.startsWith('"') === true;
}
