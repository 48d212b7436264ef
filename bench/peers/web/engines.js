// The engines that bench.mjs compares. Each reads its model from the folder that export.py wrote, and gives a function
// that writes greedily behind the expected prompt: what it wrote, as text, and how many tokens it read and wrote.

const PACKAGES = new URL("./node_modules/", import.meta.url).href;

async function memoryR1({ folder, device, expected }) {
  const { MemoryR1 } = await import("memory-r1");
  const options = { model: `${folder}bundle/`, store: "memory", __test: true };
  const memory = await MemoryR1.create({ ...options, device });
  const info = await memory.info();
  if (info.device !== device) throw new Error(info.reason);
  return async (newTokens) => {
    const wrote = await memory.__measure({ what: "write", prompt: expected.content, newTokens });
    return { read: wrote.promptTokens, wrote: wrote.newTokens, ids: wrote.ids };
  };
}

async function transformers({ folder, device, threads, expected }) {
  const { AutoModelForCausalLM, AutoTokenizer, env } = await import("@huggingface/transformers");
  const { pathname } = new URL(folder);
  Object.assign(env, { allowRemoteModels: false, allowLocalModels: true, localModelPath: pathname });
  Object.assign(env, { useBrowserCache: false, useWasmCache: false });
  Object.assign(env.backends.onnx.wasm, {
    wasmPaths: `${PACKAGES}onnxruntime-web/dist/`,
    numThreads: threads,
  });
  const inputs = (await AutoTokenizer.from_pretrained("onnx"))(expected.prompt);
  const read = inputs.input_ids.dims[1];
  const where = device === "cpu" ? "wasm" : device;
  const model = await AutoModelForCausalLM.from_pretrained("onnx", { device: where, dtype: "fp32" });
  return async (newTokens) => {
    const output = await model.generate({ ...inputs, max_new_tokens: newTokens, do_sample: false });
    const ids = output.tolist()[0].slice(read).map(Number);
    return { read, wrote: ids.length, ids };
  };
}

// ONNX Runtime's attention takes an adapter with subgroups for one whose subgroups are of 16 or more, and with the
// software adapter's, of 4, attends wrongly. A device without the feature has it take its other kernel.
function withoutSubgroups(asked) {
  const requestDevice = GPUAdapter.prototype.requestDevice;
  GPUAdapter.prototype.requestDevice = function (wanted) {
    const requiredFeatures = [...wanted.requiredFeatures].filter(
      (feature) => !feature.startsWith("subgroup"),
    );
    return requestDevice.call(this, { ...wanted, requiredFeatures });
  };
  return transformers(asked);
}

async function wllama({ folder, threads, expected }) {
  const { LoggerWithoutDebug, Wllama } = await import("@wllama/wllama");
  const paths = { default: `${PACKAGES}@wllama/wllama/esm/wasm/wllama.wasm` };
  const engine = new Wllama(paths, { suppressNativeLog: true, logger: LoggerWithoutDebug });
  const model = await (await fetch(`${folder}model.gguf`)).blob();
  const exact = { cache_type_k: "f32", cache_type_v: "f32" };
  await engine.loadModel([model], { ...exact, n_ctx: 512, n_threads: threads, n_gpu_layers: 0 });
  return async (newTokens) => {
    const asked = { prompt: expected.prompt, max_tokens: newTokens, temperature: 0, cache_prompt: false };
    const { choices, usage } = await engine.createCompletion(asked);
    return { read: usage.prompt_tokens, wrote: usage.completion_tokens, text: choices[0].text };
  };
}

export const engines = {
  "memory-r1": memoryR1,
  "transformers.js": transformers,
  "transformers.js, no subgroups": withoutSubgroups,
  wllama,
};
