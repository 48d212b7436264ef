import type { MemoryR1, Message } from "memory-r1";

/** A conversation of a LoCoMo file: sessions in order, each with its date. */
export interface Conversation {
  id: string;
  speakers: [string, string];
  sessions: { date: string; turns: { speaker: string; text: string }[] }[];
  turns: number;
}

type Json = Record<string, unknown>;

/** Reads one conversation of a file in LoCoMo's layout; an error says what is wrong with it. */
export async function readConversation(file: File, index: number): Promise<Conversation> {
  const all: unknown = JSON.parse(await file.text());
  const sample = (Array.isArray(all) ? all[index] : all) as Json | undefined;
  const conversation = sample?.conversation as Json | undefined;
  const speakers = [conversation?.speaker_a, conversation?.speaker_b];
  if (!conversation || typeof speakers[0] !== "string" || typeof speakers[1] !== "string") {
    throw new Error(`“${file.name}” is not a file of conversations in LoCoMo's layout.`);
  }
  const sessions: Conversation["sessions"] = [];
  for (let number = 1; ; number++) {
    const date = conversation[`session_${number}_date_time`];
    const turns = conversation[`session_${number}`];
    if (date === undefined) break;
    if (!Array.isArray(turns)) continue; // LoCoMo dates sessions that it does not have
    sessions.push({
      date: String(date),
      turns: turns.map((turn: Json) => ({ speaker: String(turn.speaker), text: String(turn.text) })),
    });
  }
  return {
    id: String(sample?.sample_id ?? file.name),
    speakers: [speakers[0], speakers[1]],
    sessions,
    turns: sessions.reduce((sum, session) => sum + session.turns.length, 0),
  };
}

/** How many turns before a turn help to understand it. */
const contextTurns = 2;

/**
 * Runs a conversation through the manager as `memory-r1 eval locomo` does: a bank a speaker, who
 * is the user of the mirrored pass; one `add` a turn, with the turns before it as context.
 */
export async function replay(
  memory: MemoryR1,
  conversation: Conversation,
  signal: AbortSignal,
  onTurn: (done: number, total: number) => Promise<void>,
): Promise<void> {
  let done = 0;
  for (const session of conversation.sessions) {
    for (const [place, own] of session.turns.entries()) {
      const message = (turn: { speaker: string; text: string }): Message => ({
        role: turn.speaker === own.speaker ? "user" : "assistant",
        name: turn.speaker,
        content: turn.text,
        timestamp: session.date,
      });
      await memory.add([message(own)], {
        userId: own.speaker,
        runId: conversation.id,
        context: session.turns.slice(Math.max(0, place - contextTurns), place).map(message),
        signal,
      });
      done += 1;
      await onTurn(done, conversation.turns);
    }
  }
}
