/** Two short conversations to replay, so that a newcomer sees the manager at work at once. */

export interface SampleTurn {
  /** What the person says; a text that ends with "?" is a question. */
  text: string;
  /** When, as the conversation's own clock has it. */
  timestamp: string;
}

export interface Sample {
  title: string;
  turns: SampleTurn[];
}

export const samples: Sample[] = [
  {
    title: "Moving house",
    turns: [
      { text: "Hi! I live in Bristol and I work as a nurse.", timestamp: "2024-01-08" },
      { text: "By the way, I have a dog named Biscuit.", timestamp: "2024-01-08" },
      { text: "I play the cello, badly but happily.", timestamp: "2024-02-19" },
      { text: "Big news: I moved to Leeds!", timestamp: "2024-05-02" },
      { text: "Lovely weather today, isn't it nice when it's sunny.", timestamp: "2024-05-02" },
      { text: "I don't play the cello anymore.", timestamp: "2024-06-11" },
      { text: "Where do I live?", timestamp: "2024-06-12" },
      { text: "What is my dog called?", timestamp: "2024-06-12" },
    ],
  },
  {
    title: "A new job",
    turns: [
      { text: "I work as a waiter at the moment.", timestamp: "2023-03-01" },
      { text: "I'm vegetarian and my favorite food is ramen.", timestamp: "2023-03-01" },
      { text: "My sister Irene lives in Porto.", timestamp: "2023-03-14" },
      { text: "I got a new job, I'm a librarian now!", timestamp: "2023-09-20" },
      { text: "Like I said, I'm vegetarian.", timestamp: "2023-09-21" },
      { text: "My favorite food is dumplings these days.", timestamp: "2023-10-02" },
      { text: "What do I do for a living?", timestamp: "2023-10-03" },
      { text: "Where does my sister live?", timestamp: "2023-10-03" },
    ],
  },
];
