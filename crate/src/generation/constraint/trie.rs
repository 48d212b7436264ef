//! A vocabulary as a trie over bytes, flattened in depth-first order.

/// A set of token ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bitset {
    words: Vec<u32>,
    len: usize,
}

impl Bitset {
    /// The empty set of ids below `len`.
    pub fn new(len: usize) -> Self {
        Self { words: vec![0; len.div_ceil(32)], len }
    }

    /// The number of ids there are, in the set or not.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True where no id is in the set.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    /// Puts an id in.
    pub fn insert(&mut self, id: u32) {
        self.words[id as usize / 32] |= 1 << (id % 32);
    }

    /// Puts several ids in.
    pub fn extend<'a>(&mut self, ids: impl IntoIterator<Item = &'a u32>) {
        for id in ids {
            self.insert(*id);
        }
    }

    /// Whether an id is in the set.
    pub fn contains(&self, id: u32) -> bool {
        self.words.get(id as usize / 32).is_some_and(|word| word >> (id % 32) & 1 == 1)
    }

    /// The number of ids in the set.
    pub fn count(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// The ids, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.words.iter().enumerate().flat_map(|(place, word)| {
            let mut left = *word;
            std::iter::from_fn(move || {
                let bit = (left != 0).then(|| left.trailing_zeros())?;
                left &= left - 1;
                Some(place as u32 * 32 + bit)
            })
        })
    }

    /// Bit `i % 32` of word `i / 32` is id `i`: what goes up to the device.
    pub fn words(&self) -> &[u32] {
        &self.words
    }
}

#[derive(Clone, Copy, Debug)]
struct Node {
    byte: u8,
    depth: u16,
    /// The node after the last one below this one.
    end: u32,
    /// The tokens that end here, as a range of `ids`.
    first: u32,
    past: u32,
}

/// Every token's bytes.
#[derive(Debug)]
pub struct TokenTrie {
    nodes: Vec<Node>,
    /// Where the tokens that start with a byte begin.
    roots: Vec<u32>,
    ids: Vec<u32>,
    vocabulary_size: usize,
    spells_all_text: bool,
}

impl TokenTrie {
    /// Builds it; a token without bytes is left out, since it would say nothing for ever.
    pub fn new<'a>(vocabulary_size: usize, tokens: impl Iterator<Item = (u32, &'a [u8])>) -> Self {
        let longest = u16::MAX as usize;
        let mut sorted: Vec<(&[u8], u32)> = tokens
            .filter(|(_, bytes)| !bytes.is_empty() && bytes.len() < longest)
            .map(|(id, bytes)| (bytes, id))
            .collect();
        sorted.sort_unstable();
        let mut nodes: Vec<Node> = Vec::with_capacity(sorted.len() * 2);
        let mut path: Vec<u32> = Vec::new();
        let mut before: &[u8] = &[];
        for (place, (bytes, _)) in sorted.iter().enumerate() {
            let shared = before.iter().zip(*bytes).take_while(|(a, b)| a == b).count();
            for closed in path.drain(shared..) {
                nodes[closed as usize].end = nodes.len() as u32;
            }
            for (depth, byte) in bytes.iter().enumerate().skip(shared) {
                path.push(nodes.len() as u32);
                nodes.push(Node {
                    byte: *byte,
                    depth: depth as u16,
                    end: 0,
                    first: place as u32,
                    past: place as u32,
                });
            }
            if let Some(last) = path.last() {
                nodes[*last as usize].past = place as u32 + 1;
            }
            before = bytes;
        }
        for closed in path {
            nodes[closed as usize].end = nodes.len() as u32;
        }
        let ids = sorted.into_iter().map(|(_, id)| id).collect();
        let single =
            nodes.iter().filter(|node| node.depth == 0 && node.first < node.past).map(|node| node.byte);
        let text = single.filter(|byte| matches!(byte, 0x20..=0x7E | 0x80..=0xBF | 0xC2..=0xF4)).count();
        let spells_all_text = text == (0x7F - 0x20) + (0xC0 - 0x80) + (0xF5 - 0xC2);
        let mut roots = vec![nodes.len() as u32; 256];
        for (place, node) in nodes.iter().enumerate().filter(|(_, node)| node.depth == 0) {
            roots[node.byte as usize] = place as u32;
        }
        Self { nodes, roots, ids, vocabulary_size, spells_all_text }
    }

    /// Every byte of text without control characters is a token of its own: any such text can
    /// be spelled, and finished from anywhere.
    pub fn spells_all_text(&self) -> bool {
        self.spells_all_text
    }

    /// The number of ids, holes included.
    pub fn vocabulary_size(&self) -> usize {
        self.vocabulary_size
    }

    /// Visits every token whose bytes `step` accepts one after the other from `start`.
    pub fn walk<S: Copy>(
        &self,
        start: S,
        mut step: impl FnMut(&S, u8) -> Option<S>,
        mut visit: impl FnMut(&[u32], &S),
    ) {
        let mut states = vec![start];
        let mut at = 0;
        while let Some(node) = self.nodes.get(at) {
            states.truncate(node.depth as usize + 1);
            match step(&states[node.depth as usize], node.byte) {
                Some(state) => {
                    if node.first < node.past {
                        visit(&self.ids[node.first as usize..node.past as usize], &state);
                    }
                    states.push(state);
                    at += 1;
                }
                None => at = node.end as usize,
            }
        }
    }

    /// The tokens that are prefixes of `bytes`, shortest first, each with its length.
    pub fn prefixes(&self, bytes: &[u8]) -> Vec<(usize, u32)> {
        let mut found = Vec::new();
        let Some(first) = bytes.first() else { return found };
        let (mut at, mut depth) = (self.roots[*first as usize] as usize, 0);
        while let Some(node) = self.nodes.get(at).filter(|node| node.depth as usize == depth) {
            if bytes.get(depth) == Some(&node.byte) {
                depth += 1;
                at += 1;
                found.extend((node.first < node.past).then(|| (depth, self.ids[node.first as usize])));
            } else {
                at = node.end as usize;
            }
        }
        found
    }

    /// The fewest tokens that spell `bytes`, the longest first where several do as well.
    pub(crate) fn fewest(&self, bytes: &[u8]) -> Option<Vec<u32>> {
        // best[i] = (tokens needed from i on, the first of them, where it ends)
        let mut best: Vec<Option<(usize, u32, usize)>> = vec![None; bytes.len() + 1];
        best[bytes.len()] = Some((0, 0, bytes.len()));
        for at in (0..bytes.len()).rev() {
            for (length, id) in self.prefixes(&bytes[at..]) {
                if let Some((count, ..)) = best[at + length]
                    && best[at].is_none_or(|(least, ..)| count < least)
                {
                    best[at] = Some((count + 1, id, at + length));
                }
            }
        }
        let (mut ids, mut at) = (Vec::new(), 0);
        while at < bytes.len() {
            let (_, id, next) = best[at]?;
            ids.push(id);
            at = next;
        }
        Some(ids)
    }
}
