import { type Info, type LoadProgress, MemoryR1, MemoryR1Error } from "memory-r1";
import { BankView } from "./bank_view";
import { ChatView } from "./chat_view";
import { byId, element } from "./element";
import { readConversation, replay } from "./replay";
import { type Sample, samples } from "./samples";

const me = { userId: "you" };
const query = new URLSearchParams(location.search);

const chat = new ChatView();
const input = byId<HTMLTextAreaElement>("input");
const controls = ["input", "tell", "ask", "search", "undo"].map((id) => byId<HTMLButtonElement>(id));
let memory: MemoryR1;
let running: AbortController | undefined;
/** The scope whose bank is shown: one's own, or that of a replayed conversation. */
let shown: { userId?: string; runId?: string } = me;

const bank = new BankView({
  history: async (id) => memory.history(id),
  update: (id, text) => work("Updating…", async () => void (await memory.update(id, text))),
  remove: (id, erase) => work("Deleting…", async () => void (await memory.delete(id, { erase }))),
});

// --- showing -----------------------------------------------------------------------------

function notice(text: string, kind: "error" | "info" = "error"): void {
  const box = byId("notice");
  box.hidden = text === "";
  box.dataset.kind = kind;
  box.textContent = text;
}

function explain(error: unknown): void {
  if (error instanceof Error && error.name === "AbortError") {
    chat.remark("Cancelled; nothing was changed.");
    return;
  }
  const code = error instanceof MemoryR1Error ? ` (${error.code})` : "";
  notice(`${error instanceof Error ? error.message : String(error)}${code}`);
}

function onProgress(progress: LoadProgress): void {
  byId<HTMLProgressElement>("load-progress").value = progress.progress;
  byId("load-text").textContent = progress.text;
}

function showDevice(info: Info): void {
  const badge = byId("device");
  badge.hidden = false;
  badge.textContent = `${info.device === "webgpu" ? "WebGPU" : "CPU"} · ${info.model.name}`;
  badge.title = info.reason;
  badge.dataset.device = info.device;
  if (info.selfCheck.status === "failed") notice(`The GPU's numbers are wrong; ${info.reason}`, "info");
  else if (!("gpu" in navigator)) notice("This browser has no WebGPU: the models run on the CPU.", "info");
}

async function refresh(): Promise<void> {
  const text = byId<HTMLInputElement>("search").value.trim();
  if (text) {
    const found = await memory.search(text, { filters: shown, topK: 50 });
    bank.show(found.results, `${found.results.length} found`);
  } else {
    bank.show((await memory.getAll({ filters: shown, topK: 10_000 })).results);
  }
}

// --- working -----------------------------------------------------------------------------

/** Runs one task at a time, with a line that says what it does and a button that cancels it. */
async function work(text: string, task: (signal: AbortSignal) => Promise<void>): Promise<void> {
  if (running) return;
  running = new AbortController();
  notice("");
  bank.highlight([]);
  byId("busy").hidden = false;
  byId("busy-text").textContent = text;
  for (const control of controls) control.disabled = control.id !== "input";
  try {
    await task(running.signal);
  } catch (error) {
    explain(error);
  } finally {
    running = undefined;
    byId("busy").hidden = true;
    for (const control of controls) control.disabled = false;
    await refresh().catch(explain);
  }
}

async function tell(text: string, signal: AbortSignal, timestamp?: string): Promise<void> {
  chat.said(text, timestamp ?? "");
  const operations = chat.operations();
  const { results } = await memory.add(text, {
    ...me,
    ...(timestamp ? { timestamp } : {}),
    signal,
    onDecision: (decision) => operations.add(decision),
  });
  operations.finish(results.length);
}

async function ask(text: string, signal: AbortSignal): Promise<void> {
  chat.said(text);
  const bubble = chat.answer((ids) => bank.highlight(ids));
  try {
    let written = "";
    for await (const chunk of memory.answerStream(text, { ...shown, signal })) {
      if (chunk.type === "done") {
        bubble.finish(chunk);
      } else {
        written += chunk.text;
        bubble.text(written);
      }
    }
  } catch (error) {
    bubble.drop();
    throw error;
  }
}

function submit(asQuestion?: boolean): void {
  const text = input.value.trim();
  if (!text || running) return;
  input.value = "";
  resize();
  const question = asQuestion ?? text.endsWith("?");
  if (!question) shown = me;
  void work(question ? "Looking through the memories…" : "Deciding what to keep…", (signal) =>
    question ? ask(text, signal) : tell(text, signal),
  ).then(() => input.focus());
}

function play(sample: Sample): Promise<void> {
  shown = me;
  return work(`Replaying “${sample.title}”…`, async (signal) => {
    for (const { text, timestamp } of sample.turns) {
      if (text.endsWith("?")) await ask(text, signal);
      else await tell(text, signal, timestamp);
      await refresh();
    }
  });
}

function replayFile(file: File): Promise<void> {
  return work("Reading the conversation…", async (signal) => {
    const conversation = await readConversation(file, Number(query.get("conversation") ?? 0));
    shown = { runId: conversation.id };
    chat.remark(`${conversation.speakers.join(" and ")}: ${conversation.turns} turns`);
    await replay(memory, conversation, signal, async (done, total) => {
      byId("busy-text").textContent = `Replaying ${conversation.id}: turn ${done} of ${total}`;
      if (done % 10 === 0) await refresh();
    });
    chat.remark(`${conversation.id} is in the memory now; ask about it, or export its journal.`);
  });
}

function download(text: string): void {
  const url = URL.createObjectURL(new Blob([text], { type: "application/jsonl" }));
  const link = element("a", { href: url, download: "memory-r1.jsonl" });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

// --- wiring ------------------------------------------------------------------------------

function resize(): void {
  input.style.height = "auto";
  input.style.height = `${input.scrollHeight + 2}px`;
}

function onFile(id: string, use: (file: File) => Promise<void>): void {
  const field = byId<HTMLInputElement>(id);
  field.addEventListener("change", () => {
    const file = field.files?.[0];
    field.value = "";
    byId<HTMLDetailsElement>("menu").open = false;
    if (file) void use(file);
  });
}

function onMenu(id: string, use: () => void): void {
  byId(id).addEventListener("click", () => {
    byId<HTMLDetailsElement>("menu").open = false;
    use();
  });
}

function theme(next: string | null): void {
  if (next) document.documentElement.dataset.theme = next;
}

/** What a visit leaves for the next one; nothing where the browser denies storage by throwing. */
function stored<T>(use: (storage: Storage) => T): T | null {
  try {
    return use(localStorage);
  } catch {
    return null;
  }
}

function wire(): void {
  theme(query.get("theme") ?? stored((storage) => storage.getItem("theme")));
  byId("form").addEventListener("submit", (event) => {
    event.preventDefault();
    submit(false);
  });
  byId("ask").addEventListener("click", () => submit(true));
  input.addEventListener("input", resize);
  input.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      submit();
    }
  });
  byId("cancel").addEventListener("click", () => running?.abort());
  byId("search").addEventListener("input", () => void refresh().catch(explain));
  byId("undo").addEventListener("click", () =>
    work("Undoing…", async () => {
      await memory.undo(me);
      chat.remark("The last change was undone.");
    }),
  );
  onMenu("export", () => void work("Exporting…", async () => download(await memory.export())));
  onFile("import", (file) =>
    work("Importing…", async () => {
      const { imported, skipped } = await memory.import(await file.text());
      chat.remark(`${imported} events imported, ${skipped} were there already.`);
    }),
  );
  onFile("replay-file", replayFile);
  onMenu("theme", () => {
    const dark = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
    const next = (document.documentElement.dataset.theme ?? dark) === "dark" ? "light" : "dark";
    stored((storage) => storage.setItem("theme", next));
    theme(next);
  });
  const confirm = byId<HTMLDialogElement>("confirm");
  onMenu("clear", () => confirm.showModal());
  confirm.addEventListener("close", () => {
    if (confirm.returnValue !== "erase") return;
    void work("Erasing…", async () => {
      await memory.reset();
      chat.clear();
    });
  });
  byId("samples").append(
    ...samples.map((sample) => {
      const button = element("button", { type: "button" }, `Replay “${sample.title}”`);
      button.addEventListener("click", () => void play(sample));
      return button;
    }),
  );
  byId("device").addEventListener("click", () => void showInfo());
  document.addEventListener("click", (event) => {
    const menu = byId<HTMLDetailsElement>("menu");
    if (menu.open && !menu.contains(event.target as Node)) menu.open = false;
  });
}

async function showInfo(): Promise<void> {
  const info = await memory.info();
  const rows: [string, string][] = [
    ["Device", `${info.device}: ${info.reason}`],
    [
      "Adapter",
      info.adapter
        ? `${info.adapter.vendor} ${info.adapter.architecture} ${info.adapter.description}`
        : "none",
    ],
    ["Model", `${info.model.name}, context ${info.model.contextLength}`],
    ["Fingerprint", info.model.fingerprint],
    ["Self-check", info.selfCheck.status],
    ["Store", `${info.store.kind}${info.store.persisted === false ? ", the browser may evict it" : ""}`],
    ["Version", info.version],
  ];
  byId("info-list").replaceChildren(
    ...rows.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]),
  );
  byId<HTMLDialogElement>("info").showModal();
}

async function start(): Promise<void> {
  wire();
  try {
    memory = await MemoryR1.create({
      device: (query.get("device") ?? "auto") as "auto" | "webgpu" | "cpu",
      seed: 0,
      onProgress,
      __test: query.has("test"),
    });
  } catch (error) {
    explain(error);
    byId("load-text").textContent = "The memory could not be started.";
    return;
  }
  // The browser tests call the package on the page itself.
  if (query.has("test")) Object.assign(window, { memory, MemoryR1 });
  byId("loading").hidden = true;
  for (const control of controls) control.disabled = false;
  showDevice(await memory.info());
  await refresh();
  document.body.dataset.ready = "true";
  input.focus();
}

void start().catch(explain);
