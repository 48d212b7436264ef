/** Where a model comes from: what `create` takes, read, and the folder of URLs that it stands for. */

import { invalid } from "../errors.js";
import type { ModelSource, RemoteSource } from "../protocol.js";
import type { HubOptions } from "../types.js";

/** The public address of the Hugging Face hub. */
export const HUB = "https://huggingface.co";

/** `owner/name`, then `@revision`. A relative URL begins with `./` or `/` and so is none. */
const REPOSITORY = /^([\w-][\w.-]*\/[\w-][\w.-]*)(?:@(.*))?$/su;
/** What git allows in a name, and a commit. */
const REVISION = /^(?!.*\.\.)[^\s\p{Cc}~^:?*[\\]{1,255}$/u;
const COMMIT = /^[0-9a-f]{40}$/;

/** A folder of a model on a web server. */
export interface Folder {
  /** The model as `create` takes it, spelled in one way. */
  model: string;
  /** The folder's URL, with a slash at its end. */
  base: string;
  /** Of a hub: where it shows what a large file stands for; null elsewhere. */
  raw: string | null;
  /** Of a hub: the caller's token. */
  token: string | null;
  /** A commit: what is in it never changes. */
  fixed: boolean;
}

/**
 * A model's name or URL as a source: `"nano"`, `owner/name` or `owner/name@revision` on the hub, else
 * a URL, relative to the page. `INVALID_ARGUMENT` for anything else, and for a wrong hub.
 */
export function readSource(model: string | URL, hub?: HubOptions, wrong = NOT_A_MODEL): ModelSource {
  const { endpoint, token } = readHub(hub);
  if (model === "nano") return { kind: "nano" };
  const [, repository, revision = "main"] = REPOSITORY.exec(String(model)) ?? [];
  if (repository === undefined) return { kind: "url", url: absolute(String(model), wrong) };
  if (!REVISION.test(revision)) {
    throw invalid(`${JSON.stringify(revision)} is not a branch, a tag or a commit of ${repository}`);
  }
  return { kind: "hub", repository, revision, endpoint, token };
}

/** An encoder's URL or repository as a source; `INVALID_ARGUMENT` for anything else. */
export function readEncoderSource(encoder: string | URL, hub?: HubOptions): RemoteSource {
  const source = readSource(encoder, hub, NOT_AN_ENCODER);
  if (source.kind === "url" || source.kind === "hub") return source;
  throw invalid(`${JSON.stringify(String(encoder))} ${NOT_AN_ENCODER}`);
}

/** The folder that a source of URLs means. */
export function folderOf(source: RemoteSource): Folder {
  if (source.kind === "url") {
    const base = folderUrl(new URL(source.url));
    return { model: base, base, raw: null, token: null, fixed: false };
  }
  const { repository, revision, endpoint, token } = source;
  const at = encodeURIComponent(revision);
  return {
    model: revision === "main" ? repository : `${repository}@${revision}`,
    base: `${endpoint}/${repository}/resolve/${at}/`,
    raw: `${endpoint}/${repository}/raw/${at}/`,
    token,
    fixed: COMMIT.test(revision),
  };
}

const NOT_A_MODEL = `is not "nano", a URL, or owner/name on Hugging Face`;
const NOT_AN_ENCODER = `is not "lexical", a URL, or owner/name on Hugging Face`;

function readHub(hub: HubOptions | undefined): { endpoint: string; token: string | null } {
  if (hub === undefined || hub === null) return { endpoint: HUB, token: null };
  if (typeof hub !== "object") throw invalid("hub must be an object like { endpoint, token }");
  const { endpoint = HUB, token = null } = hub;
  const url = new URL(absolute(String(endpoint), "is not the URL of a hub"));
  if (!/^https?:$/.test(url.protocol) || url.username !== "" || url.password !== "") {
    throw invalid("hub.endpoint must be an http or https URL without a password; a token goes in hub.token");
  }
  // The sentence does not repeat the token.
  if (token !== null && (typeof token !== "string" || !/^[\x21-\x7e]{1,4096}$/.test(token))) {
    throw invalid("hub.token must be a string of visible ASCII characters");
  }
  return { endpoint: folderUrl(url).slice(0, -1), token };
}

function folderUrl(url: URL): string {
  return `${url.protocol}//${url.host}${url.pathname.replace(/\/*$/, "/")}`;
}

function absolute(url: string, wrong: string): string {
  const base =
    (globalThis as { document?: { baseURI: string } }).document?.baseURI ?? globalThis.location?.href;
  try {
    return new URL(url, base).href;
  } catch (error) {
    throw invalid(`${JSON.stringify(url)} ${wrong}: ${String(error)}`);
  }
}
