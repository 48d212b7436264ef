import type { Answer, Decision } from "memory-r1";
import { byId, element, percent } from "./element";

const sentences: Record<string, string> = {
  ADD: "ADD",
  UPDATE: "UPDATE",
  DELETE: "DELETE",
  NONE: "NOOP",
};

/** The left-hand side: what was said, what the manager did about it, what was answered. */
export class ChatView {
  readonly #list = byId<HTMLOListElement>("messages");
  readonly #welcome = byId("welcome");

  /** What the person (or a speaker of a replayed conversation) said. */
  said(text: string, meta = ""): void {
    this.#welcome.hidden = true;
    const body = element("div", { class: "bubble" }, text);
    this.#append("own", body, meta);
  }

  /** An empty list of operations, to be filled as they happen. */
  operations(): OperationList {
    const list = element("ul", { class: "operations" });
    this.#append("", list);
    return new OperationList(list, () => this.#scroll());
  }

  /** An empty answer, to be filled as it is written. */
  answer(onUsed: (ids: string[]) => void): AnswerBubble {
    const bubble = element("div", { class: "bubble answer", "aria-busy": "true" }, "…");
    const item = this.#append("", bubble);
    return new AnswerBubble(item, bubble, onUsed, () => this.#scroll());
  }

  /** A line of the application itself. */
  remark(text: string): void {
    this.#append("", element("div", { class: "meta" }, text));
  }

  clear(): void {
    this.#list.replaceChildren();
    this.#welcome.hidden = false;
  }

  #append(own: string, body: HTMLElement, meta = ""): HTMLLIElement {
    const item = element("li", { class: `message ${own}` }, body);
    if (meta) item.append(element("div", { class: "meta" }, meta));
    this.#list.append(item);
    this.#scroll();
    return item;
  }

  #scroll(): void {
    this.#list.scrollTop = this.#list.scrollHeight;
  }
}

export class OperationList {
  constructor(
    readonly list: HTMLUListElement,
    readonly scroll: () => void,
  ) {}

  /** One operation: its name, the text before and after, and how sure the manager was. */
  add(decision: Decision): void {
    const { event, memory, previousMemory } = decision;
    const text: (Node | string)[] = [];
    if (event === "UPDATE" && previousMemory) text.push(element("del", {}, previousMemory), " → ");
    text.push(event === "DELETE" ? element("del", {}, previousMemory ?? memory) : element("ins", {}, memory));
    const sure = decision.receipt?.known ? "already known" : percent(decision.probability);
    this.list.append(
      element(
        "li",
        { class: "operation", "data-event": event },
        element("span", { class: "tag", "data-event": event }, sentences[event] ?? event),
        ...text,
        element("span", { class: "probability" }, sure),
      ),
    );
    this.scroll();
  }

  /** Says so where the message had nothing to remember. */
  finish(count: number): void {
    if (count > 0) return;
    this.list.append(
      element(
        "li",
        { class: "operation", "data-event": "NONE" },
        element("span", { class: "tag", "data-event": "NONE" }, "NOOP"),
        "nothing to remember",
      ),
    );
    this.scroll();
  }
}

export class AnswerBubble {
  constructor(
    readonly item: HTMLLIElement,
    readonly bubble: HTMLDivElement,
    readonly onUsed: (ids: string[]) => void,
    readonly scroll: () => void,
  ) {}

  text(text: string): void {
    this.bubble.textContent = text || "…";
    this.scroll();
  }

  /** The whole answer, with the memories that it stands on. */
  finish(answer: Answer): void {
    this.bubble.textContent = answer.answer;
    this.bubble.removeAttribute("aria-busy");
    const ids = answer.memories.map((memory) => memory.id);
    this.onUsed(ids);
    if (ids.length > 0) {
      const buttons = answer.memories.map((memory) => {
        const button = element("button", { type: "button" }, `from: ${memory.memory}`);
        button.addEventListener("click", () => this.onUsed([memory.id]));
        return element("li", {}, button);
      });
      this.item.append(element("ul", { class: "used", "aria-label": "Memories used" }, ...buttons));
    } else {
      this.item.append(
        element("div", { class: "meta" }, `no memory used, of ${answer.candidates.length} looked at`),
      );
    }
    this.scroll();
  }

  drop(): void {
    this.item.remove();
  }
}
