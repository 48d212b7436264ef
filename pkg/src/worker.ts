/** The module worker: an engine behind messages. */

import { toWire } from "./errors.js";
import { Host } from "./host.js";
import type { FromWorker, Port, ToWorker } from "./protocol.js";
import { serve } from "./serve.js";

interface WorkerScope {
  postMessage(message: FromWorker): void;
  addEventListener(type: string, listener: (event: never) => void): void;
}
const scope = globalThis as unknown as WorkerScope;

const port: Port<FromWorker, ToWorker> = {
  post: (message) => scope.postMessage(message),
  listen: (listener) =>
    scope.addEventListener("message", (event: MessageEvent<ToWorker>) => listener(event.data)),
};
serve(port, (options, hooks) => Host.create(options, hooks));

// A trap without a panic (memory used up, stack overflow) surfaces nowhere else.
const trapped = (error: unknown) => {
  if (error instanceof WebAssembly.RuntimeError || error instanceof RangeError) {
    port.post({ type: "trap", message: toWire(error).message });
  }
};
scope.addEventListener("error", (event: ErrorEvent) => trapped(event.error));
scope.addEventListener("unhandledrejection", (event: PromiseRejectionEvent) => trapped(event.reason));
