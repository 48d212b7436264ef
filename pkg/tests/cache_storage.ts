// Cache Storage in memory, as far as the package needs it, with the refusals of the real one: a `put`
// that fails keeps nothing, and the room is limited.

interface Entry {
  url: string;
  status: number;
  headers: Headers;
  body: Uint8Array<ArrayBuffer>;
}

/** All caches of one origin, in `quota` bytes. */
export class MemoryCacheStorage implements CacheStorage {
  /** May be changed at any time. */
  quota: number;
  readonly #caches = new Map<string, MemoryCache>();

  constructor(quota = Number.POSITIVE_INFINITY) {
    this.quota = quota;
  }

  async open(name: string): Promise<MemoryCache> {
    const cache = this.#caches.get(name) ?? new MemoryCache((bytes) => this.usage() + bytes <= this.quota);
    this.#caches.set(name, cache);
    return cache;
  }

  async has(name: string): Promise<boolean> {
    return this.#caches.has(name);
  }

  async delete(name: string): Promise<boolean> {
    return this.#caches.delete(name);
  }

  async keys(): Promise<string[]> {
    return [...this.#caches.keys()];
  }

  async match(request: RequestInfo | URL, options?: MultiCacheQueryOptions): Promise<Response | undefined> {
    for (const [name, cache] of this.#caches) {
      if ((options?.cacheName ?? name) !== name) continue;
      const found = await cache.match(request, options);
      if (found !== undefined) return found;
    }
    return undefined;
  }

  /** How many bytes all bodies take. */
  usage(): number {
    return [...this.#caches.values()].reduce((sum, cache) => sum + cache.usage(), 0);
  }
}

/** One cache. */
export class MemoryCache implements Cache {
  readonly #mayGrow: (bytes: number) => boolean;
  #entries: Entry[] = [];

  constructor(mayGrow: (bytes: number) => boolean) {
    this.#mayGrow = mayGrow;
  }

  async put(input: RequestInfo | URL, response: Response): Promise<void> {
    const request = new Request(input);
    if (!/^https?:/.test(request.url)) throw new TypeError("the scheme is not http or https");
    if (request.method !== "GET") throw new TypeError("the method is not GET");
    if (response.status === 206) throw new TypeError("a partial answer cannot be put");
    if (response.headers.get("vary")?.includes("*")) throw new TypeError("it varies by everything");
    if (response.bodyUsed) throw new TypeError("the body was read already");
    const body = new Uint8Array(await response.arrayBuffer());
    const url = withoutHash(request.url);
    const old = this.#entries.find((entry) => entry.url === url);
    if (!this.#mayGrow(body.length - (old?.body.length ?? 0))) {
      throw new DOMException("there is no room", "QuotaExceededError");
    }
    const entry = { url, status: response.status, headers: new Headers(response.headers), body };
    this.#entries = [...this.#entries.filter((one) => one !== old), entry];
  }

  async match(request: RequestInfo | URL, options?: CacheQueryOptions): Promise<Response | undefined> {
    return (await this.matchAll(request, options))[0];
  }

  async matchAll(request?: RequestInfo | URL, options?: CacheQueryOptions): Promise<Response[]> {
    return this.#find(request, options).map(
      ({ status, headers, body }) => new Response(body.slice(), { status, headers }),
    );
  }

  async keys(request?: RequestInfo | URL, options?: CacheQueryOptions): Promise<Request[]> {
    return this.#find(request, options).map(({ url }) => new Request(url));
  }

  async delete(request: RequestInfo | URL, options?: CacheQueryOptions): Promise<boolean> {
    const found = new Set(this.#find(request, options));
    this.#entries = this.#entries.filter((entry) => !found.has(entry));
    return found.size > 0;
  }

  async add(request: RequestInfo | URL): Promise<void> {
    const response = await fetch(request);
    if (!response.ok) throw new TypeError("the answer is not ok");
    await this.put(request, response);
  }

  async addAll(requests: Iterable<RequestInfo>): Promise<void> {
    for (const request of requests) await this.add(request);
  }

  usage(): number {
    return this.#entries.reduce((sum, { body }) => sum + body.length, 0);
  }

  #find(request?: RequestInfo | URL, options?: CacheQueryOptions): Entry[] {
    if (request === undefined) return this.#entries;
    const shown = (url: string) => (options?.ignoreSearch ? url.split("?")[0] : url);
    const wanted = shown(withoutHash(new Request(request).url));
    return this.#entries.filter(({ url }) => shown(url) === wanted);
  }
}

function withoutHash(url: string): string {
  return url.split("#")[0] ?? url;
}
