/** What differs between browsers, workers, Node, Deno and Bun. Nothing runs on import. */

import { MemoryR1Error } from "./errors.js";

interface NodeProcess {
  versions?: { node?: string };
  getBuiltinModule?: (name: string) => unknown;
}

/** The content of a `file:` URL, where there is a file system; null where there is none. */
export async function readLocalFile(url: URL): Promise<Uint8Array<ArrayBuffer> | null> {
  if (url.protocol !== "file:") return null;
  const { process } = globalThis as { process?: NodeProcess };
  // Without an `import`, so that no bundler looks for Node's modules.
  const fs = process?.getBuiltinModule?.("node:fs/promises") as
    | { readFile(url: URL): Promise<Uint8Array<ArrayBuffer>> }
    | undefined;
  if (fs === undefined) return null;
  try {
    return await fs.readFile(url);
  } catch (error) {
    throw new MemoryR1Error("NOT_REACHABLE", `${url.href} cannot be read`, { cause: error });
  }
}

/** Gives every other task a turn: messages, timers, painting. Faster than `setTimeout`'s 4 ms. */
export function makeYield(): () => Promise<void> {
  const { setImmediate } = globalThis as { setImmediate?: (then: () => void) => unknown };
  // Node and Bun: an open channel would keep the process alive.
  if (setImmediate !== undefined) return () => new Promise((resolve) => setImmediate(resolve));
  const { port1, port2 } = new MessageChannel();
  const waiting: (() => void)[] = [];
  port1.onmessage = () => waiting.shift()?.();
  return () =>
    new Promise((resolve) => {
      waiting.push(resolve);
      port2.postMessage(null);
    });
}

/** What is known of a GPU without using it. */
export interface AdapterFacts {
  vendor: string;
  architecture: string;
  description: string;
  /** A processor that plays a GPU. */
  software: boolean;
}

interface GpuAdapterInfo {
  vendor?: string;
  architecture?: string;
  device?: string;
  description?: string;
  isFallbackAdapter?: boolean;
}
interface GpuAdapter {
  info?: GpuAdapterInfo;
  isFallbackAdapter?: boolean;
  requestDevice(): Promise<{ destroy(): void }>;
}
interface Gpu {
  requestAdapter(options?: object): Promise<GpuAdapter | null>;
}

const SOFTWARE = /swiftshader|llvmpipe|lavapipe|softpipe|basic render|software|\bwarp\b/i;

/** The adapter that WebGPU would use, or why there is none. Never throws. */
export async function probeAdapter(): Promise<{ adapter: AdapterFacts | null; why: string }> {
  const { gpu } = (globalThis.navigator ?? {}) as { gpu?: Gpu };
  if (gpu === undefined) return { adapter: null, why: "this browser has no WebGPU" };
  try {
    const adapter = await gpu.requestAdapter({ powerPreference: "high-performance" });
    if (adapter === null) return { adapter: null, why: "WebGPU is there, but gives no adapter" };
    const info = adapter.info ?? {};
    const names = [info.vendor, info.architecture, info.device, info.description].map((name) => name ?? "");
    const facts = {
      vendor: info.vendor ?? "",
      architecture: info.architecture ?? "",
      description: info.description || info.device || "",
      software:
        Boolean(info.isFallbackAdapter || adapter.isFallbackAdapter) || SOFTWARE.test(names.join(" ")),
    };
    // An adapter that refuses a device would make the engine fail where it cannot recover.
    (await adapter.requestDevice()).destroy();
    return { adapter: facts, why: "" };
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    return { adapter: null, why: `WebGPU gives no device: ${message}` };
  }
}
