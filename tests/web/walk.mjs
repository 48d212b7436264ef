// The walk that a newcomer takes, in sentences that occur nowhere in the training data
// (`unseen.spec.mjs` looks).

/** What is said, and the operation that it should lead to: NONE is small talk. */
export const statements = [
  ["Hello you! My home is in Ghent these days.", "ADD"],
  ["I work as a florist, which suits me well.", "ADD"],
  ["Oh, and I have a dog named Pickle.", "ADD"],
  ["My favorite food is risotto, no question.", "ADD"],
  ["I play the banjo, to my neighbours' horror.", "ADD"],
  ["What a rainy old morning it has been.", "NONE"],
  ["Big news, I moved to Oslo!", "UPDATE"],
  ["Thanks for listening, you are very kind.", "NONE"],
  ["I'm not a florist anymore, I work as a baker now.", "UPDATE"],
  ["I no longer play the banjo, sadly.", "DELETE"],
  ["My favorite food is tacos now.", "UPDATE"],
  ["Haha, that one made my whole day.", "NONE"],
];

/** What is asked, and the word that the answer must have. */
export const questions = [
  ["Where do I live?", "Oslo"],
  ["What do I do for work?", "baker"],
  ["And what is my dog's name?", "Pickle"],
  ["And what is my favorite food now?", "tacos"],
  ["What kind of pet do I have?", "dog"],
];
