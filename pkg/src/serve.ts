/** The worker's end of the protocol, apart from the worker itself so that it can be tested. */

import { fromWire, toWire } from "./errors.js";
import type { MakeHost } from "./in_process.js";
import type { EngineOptions, FromWorker, Port, StoreMethod, ToWorker } from "./protocol.js";

type Waiting = { resolve(value: unknown): void; reject(error: unknown): void };

/** Answers what comes through `port`, until it is told to close. */
export function serve(port: Port<FromWorker, ToWorker>, makeHost: MakeHost): void {
  const stop = new AbortController();
  const storeCalls = new Map<number, Waiting>();
  let nextStoreCall = 1;
  let host: Awaited<ReturnType<MakeHost>> | undefined;

  const callStore = (method: StoreMethod, args: unknown[]) =>
    new Promise<unknown>((resolve, reject) => {
      const call = nextStoreCall++;
      storeCalls.set(call, { resolve, reject });
      port.post({ type: "store", call, method, args });
    });

  const create = async (options: EngineOptions) => {
    try {
      host = await makeHost(options, {
        onProgress: (progress) => port.post({ type: "progress", progress }),
        onTrap: (message) => port.post({ type: "trap", message }),
        store: options.store === "custom" ? callStore : undefined,
        signal: stop.signal,
      });
      port.post({ type: "ready" });
    } catch (error) {
      port.post({ type: "failed", error: toWire(error) });
    }
  };

  const call = async ({ id, method, args }: Extract<ToWorker, { type: "call" }>) => {
    try {
      if (host === undefined) throw new Error("the engine is not there");
      const value = await host.call(id, method, args, (event) => port.post({ type: "event", id, event }));
      port.post({ type: "result", id, value });
    } catch (error) {
      port.post({ type: "error", id, error: toWire(error) });
    }
  };

  const answerStore = (message: Extract<ToWorker, { type: "stored" | "storeFailed" }>) => {
    const waiting = storeCalls.get(message.call);
    storeCalls.delete(message.call);
    if (message.type === "stored") waiting?.resolve(message.value);
    else waiting?.reject(fromWire(message.error));
  };

  port.listen((message) => {
    switch (message.type) {
      case "create":
        void create(message.options);
        break;
      case "call":
        void call(message);
        break;
      case "abort":
        host?.abort(message.id);
        break;
      case "stop":
        stop.abort();
        break;
      case "stored":
      case "storeFailed":
        answerStore(message);
        break;
      case "close":
        stop.abort();
        void (host?.close() ?? Promise.resolve()).catch(() => {}).then(() => port.post({ type: "closed" }));
        break;
    }
  });
}
