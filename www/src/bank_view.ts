import type { HistoryEntry, Memory } from "memory-r1";
import { byId, day, element, percent } from "./element";

export interface BankActions {
  history(id: string): Promise<HistoryEntry[]>;
  update(id: string, text: string): Promise<void>;
  remove(id: string, erase: boolean): Promise<void>;
}

/** The right-hand side: every memory, its history, and what may be done to it. */
export class BankView {
  readonly #list = byId<HTMLUListElement>("memories");
  readonly #count = byId("count");
  readonly #empty = byId("empty");
  readonly #actions: BankActions;
  #known = new Map<string, string>();
  #used = new Set<string>();

  constructor(actions: BankActions) {
    this.#actions = actions;
  }

  /** Shows these memories, in their order; those whose text is new light up. */
  show(memories: Memory[], note = ""): void {
    const first = this.#known.size === 0;
    const open = new Set(
      [...this.#list.querySelectorAll("details[open]")].map((node) => node.closest("li")?.dataset.id ?? ""),
    );
    this.#list.replaceChildren(
      ...memories.map((memory) => {
        const item = this.#item(memory, open.has(memory.id));
        if (!first && this.#known.get(memory.id) !== memory.memory) this.#flash(item, "changed");
        return item;
      }),
    );
    this.#known = new Map(memories.map((memory) => [memory.id, memory.memory]));
    this.#count.textContent = note || (memories.length === 1 ? "1 memory" : `${memories.length} memories`);
    this.#empty.hidden = memories.length > 0;
  }

  /** Lights up the memories that an answer used, until the next call. */
  highlight(ids: string[]): void {
    this.#used = new Set(ids);
    for (const item of this.#list.querySelectorAll<HTMLLIElement>("li.memory")) {
      const used = this.#used.has(item.dataset.id ?? "");
      item.classList.toggle("used-now", used);
      if (used) item.scrollIntoView({ block: "nearest", behavior: "smooth" });
    }
  }

  #flash(item: HTMLElement, name: string): void {
    item.classList.add(name);
    setTimeout(() => item.classList.remove(name), 2500);
  }

  #item(memory: Memory, open: boolean): HTMLLIElement {
    const history = element("ol", { class: "history" });
    const details = element("details", {}, element("summary", {}, "History and actions"), history);
    const load = () => void this.#fill(history, memory.id);
    details.addEventListener("toggle", () => details.open && load());
    details.append(this.#buttons(memory));
    const speaker = memory.speaker && memory.speaker !== "user" ? `${memory.speaker} · ` : "";
    const item = element(
      "li",
      { class: this.#used.has(memory.id) ? "memory used-now" : "memory", "data-id": memory.id },
      element("div", { class: "memory-text" }, memory.memory),
      element("div", { class: "meta" }, `${speaker}${day(memory.observedAt)}`),
      details,
    );
    if (open) details.open = true;
    return item;
  }

  async #fill(list: HTMLOListElement, id: string): Promise<void> {
    const entries = await this.#actions.history(id);
    list.replaceChildren(
      ...entries.map((entry) =>
        element(
          "li",
          {},
          element("span", { class: "tag", "data-event": entry.event }, entry.event),
          `${entry.memory ?? entry.previousMemory ?? ""} `,
          element(
            "span",
            { class: "probability" },
            [day(entry.createdAt), entry.cause, percent(entry.receipt?.probability)]
              .filter(Boolean)
              .join(" · "),
          ),
          ...(entry.receipt
            ? [
                element(
                  "div",
                  { class: "meta" },
                  `because ${entry.receipt.turn.speaker} said: “${entry.receipt.turn.content}”`,
                ),
              ]
            : []),
        ),
      ),
    );
  }

  #buttons(memory: Memory): HTMLDivElement {
    const edit = element("button", { type: "button" }, "Edit");
    edit.addEventListener("click", () => {
      const text = prompt("The new text of this memory", memory.memory)?.trim();
      if (text && text !== memory.memory) void this.#actions.update(memory.id, text);
    });
    const forget = element("button", { type: "button" }, "Delete");
    forget.addEventListener("click", () => void this.#actions.remove(memory.id, false));
    const erase = element("button", { type: "button", class: "danger" }, "Erase for ever");
    erase.addEventListener("click", () => void this.#actions.remove(memory.id, true));
    return element("div", { class: "memory-actions" }, edit, forget, erase);
  }
}
