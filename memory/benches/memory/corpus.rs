//! A corpus made of a seed: documents of about 1 KB with one fact each, and questions with and without support.

use aivillage_memory::Document;

/// xorshift64*, enough for a corpus.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33).unwrap_or(0) % n
    }

    /// Small numbers often, large ones seldom: the ranks of words in a language.
    fn rank(&mut self, n: usize) -> usize {
        let most = self.below(n) + 1;
        self.below(most)
    }
}

const SYLLABLES: [&str; 24] = [
    "ba", "ke", "lo", "mi", "nu", "ra", "se", "ti", "vo", "zu", "dar", "fen", "gol", "hin", "jur", "kal", "lem", "mor",
    "nes", "pol", "rin", "sta", "tur", "wex",
];
const RELATIONS: [&str; 8] = ["depth", "owner", "founder", "length", "weight", "colour", "price", "age"];
const VOCABULARY: usize = 8_000;

fn word(n: usize) -> String {
    let mut n = n + 24;
    let mut out = String::new();
    while n > 0 {
        out.push_str(SYLLABLES[n % 24]);
        n /= 24;
    }
    out
}

/// A name that only document `n` has; names beyond the corpus are in none.
fn name(n: usize) -> String {
    let name = word(n * 7 + 20_000);
    name[..1].to_uppercase() + &name[1..] + "ia"
}

fn fact(n: usize) -> (String, &'static str, usize) {
    (name(n), RELATIONS[n % RELATIONS.len()], n * 31 % 977 + 3)
}

/// `count` documents.
pub(crate) fn documents(seed: u64, count: usize) -> Vec<Document> {
    let mut random = Random::new(seed);
    (0..count).map(|n| document(n, &mut random)).collect()
}

fn document(n: usize, random: &mut Random) -> Document {
    let (name, relation, value) = fact(n);
    let mut text = format!("The {relation} of {name} is {value} units according to the {} register. ", word(n % 50));
    while text.len() < 1000 {
        let words: Vec<String> = (0..8 + random.below(10)).map(|_| word(random.rank(VOCABULARY))).collect();
        let sentence = words.join(" ");
        text.push_str(&sentence[..1].to_uppercase());
        text.push_str(&sentence[1..]);
        text.push_str(" and the rest. ");
    }
    Document { id: Some(format!("doc-{n}")), title: Some(format!("Notes {n}")), text, ..Document::default() }
}

/// A document that nothing else resembles.
pub(crate) fn probe() -> Document {
    Document { id: Some("probe".to_owned()), text: "The very last document.".to_owned(), ..Document::default() }
}

/// Questions that a document answers.
pub(crate) fn questions(seed: u64, count: usize, questions: usize) -> Vec<String> {
    let mut random = Random::new(seed);
    (0..questions)
        .map(|_| {
            let (name, relation, _) = fact(random.below(count));
            format!("What is the {relation} of {name} in units according to the register?")
        })
        .collect()
}

/// Questions of the same form about things that are nowhere, and about the world.
pub(crate) fn unsupported(seed: u64, questions: usize) -> Vec<String> {
    let mut random = Random::new(seed);
    (0..questions)
        .map(|n| {
            let (name, relation, _) = fact(1_000_000 + random.below(1_000_000));
            match n % 4 {
                0 => format!("What is the {relation} of {name} in units according to the register?"),
                1 => format!("Who painted the portrait of {name}?"),
                2 => format!("When did {} and {} sign the treaty?", name, word(random.below(VOCABULARY))),
                _ => format!("How does photosynthesis store the energy of {} light?", word(random.below(VOCABULARY))),
            }
        })
        .collect()
}
