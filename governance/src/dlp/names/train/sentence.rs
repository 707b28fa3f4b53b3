//! Templates, filled: a text and what in it is a name, an address, a place.

use std::ops::Range;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use super::{Lists, TrainError};
use crate::dlp::DataKind;

const TITLES: &[&str] = &[
    "Dr.",
    "Dr",
    "Mr.",
    "Mr",
    "Mrs.",
    "Mrs",
    "Ms.",
    "Ms",
    "Miss",
    "Prof.",
    "Professor",
    "Nurse",
    "Judge",
    "Captain",
    "Sir",
    "Lady",
    "Herr",
    "Frau",
    "Herrn",
    "Monsieur",
    "Madame",
    "Mme",
    "Señor",
    "Señora",
    "Sra.",
    "Signor",
    "Mevrouw",
    "Doctor",
    "Sister",
    "Father",
    "Reverend",
    "Rabbi",
    "Officer",
    "Detective",
    "Sergeant",
    "Inspector",
    "Coach",
    "Uncle",
    "Aunt",
];
const ROLES: &[&str] = &[
    "doctor",
    "nurse",
    "surgeon",
    "teacher",
    "judge",
    "lawyer",
    "clerk",
    "manager",
    "driver",
    "engineer",
    "baker",
    "tenant",
    "landlord",
    "neighbour",
    "colleague",
    "friend",
    "uncle",
    "aunt",
    "cousin",
    "grandmother",
    "grandfather",
    "brother",
    "sister",
    "mother",
    "father",
    "son",
    "daughter",
    "wife",
    "husband",
    "patient",
    "client",
    "customer",
    "caller",
    "visitor",
    "witness",
    "suspect",
    "victim",
    "mayor",
    "senator",
    "minister",
    "captain",
    "pilot",
    "coach",
    "goalkeeper",
    "singer",
    "painter",
    "author",
    "editor",
    "reporter",
    "officer",
    "detective",
    "docteur",
    "professeur",
    "maître",
    "doctora",
    "dottore",
    "dokter",
    "pupil",
];
/// Peoples and what they speak.
pub(super) const TONGUES: &[&str] = &[
    "English",
    "French",
    "German",
    "Italian",
    "Spanish",
    "Dutch",
    "Danish",
    "Swedish",
    "Norwegian",
    "Finnish",
    "Polish",
    "Czech",
    "Hungarian",
    "Greek",
    "Turkish",
    "Russian",
    "Ukrainian",
    "Arabic",
    "Hebrew",
    "Persian",
    "Hindi",
    "Chinese",
    "Japanese",
    "Korean",
    "Portuguese",
    "Irish",
    "Scottish",
    "Welsh",
    "British",
    "American",
    "Canadian",
    "Mexican",
    "Brazilian",
    "Indian",
    "European",
];
const MONTHS: &[&str] = &[
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: &[&str] = &["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
/// Names of things, many of which people have too.
const PRODUCTS: &[&str] = &[
    "Kubernetes",
    "Docker",
    "Postgres",
    "Python",
    "Rust",
    "Java",
    "Excel",
    "Windows",
    "Android",
    "Kafka",
    "Cassandra",
    "Julia",
    "Jenkins",
    "Apollo",
    "Celery",
    "Django",
    "Maven",
    "Gradle",
    "Ansible",
    "Puppet",
    "Chef",
    "Redis",
    "Apache",
    "Tomcat",
    "Vault",
    "Consul",
    "Nomad",
    "Elastic",
    "Grafana",
    "Prometheus",
    "Jaeger",
    "Tokio",
    "Serde",
    "Tantivy",
    "Cedar",
    "Raft",
    "Ubuntu",
    "Debian",
    "Fedora",
    "Perl",
    "Swift",
    "Scala",
    "Ruby",
    "Crystal",
    "Dart",
    "Ada",
    "Pascal",
    "Haskell",
    "Erlang",
    "Elixir",
    "Oracle",
    "Slack",
    "Teams",
    "Zoom",
    "Outlook",
    "Word",
    "Safari",
    "Chrome",
    "Gemini",
    "Claude",
    "Alexa",
    "Siri",
    "Tesla",
    "Mercedes",
    "Ford",
    "Dell",
    "Lenovo",
    "Nokia",
    "Cargo",
    "Clippy",
    "Merkle",
    "Luhn",
    "Markdown",
    "Unicode",
];
const LEGAL: &[&str] = &[
    "Inc.",
    "Inc",
    "Ltd",
    "Ltd.",
    "GmbH",
    "AG",
    "LLC",
    "Group",
    "Corp.",
    "Bank",
    "Holdings",
    "Partners",
    "& Sons",
    "Industries",
];
const HOUSES: &[&str] =
    &["Hospital", "Clinic", "University", "Airlines", "Medical Center", "Council", "Institute", "Press", "Library"];
const BASES: &[&str] = &[
    "Main",
    "Oak",
    "Elm",
    "Maple",
    "High",
    "Church",
    "Mill",
    "Park",
    "Lake",
    "Hill",
    "Station",
    "School",
    "Bridge",
    "River",
    "Spring",
    "Cedar",
    "Pine",
    "Market",
    "Queen",
    "King's",
    "Victoria",
    "North",
    "South",
    "Chestnut",
    "Willow",
    "Old Mill",
    "Sunset",
    "Green",
    "Castle",
    "York",
    "London",
    "Saint James",
    "Washington",
    "5th",
    "42nd",
    "Third",
    "Second",
];
const SUFFIXES: &[&str] = &[
    "Street",
    "Street",
    "St",
    "St.",
    "Road",
    "Rd",
    "Rd.",
    "Avenue",
    "Ave",
    "Ave.",
    "Lane",
    "Ln",
    "Drive",
    "Dr",
    "Court",
    "Place",
    "Way",
    "Close",
    "Square",
    "Boulevard",
    "Blvd",
    "Terrace",
    "Crescent",
];
const GERMAN: &[&str] = &[
    "Haupt",
    "Bahnhof",
    "Garten",
    "Schul",
    "Kirch",
    "Berg",
    "Wald",
    "Linden",
    "Rosen",
    "Mühl",
    "Goethe",
    "Schiller",
    "Berliner ",
    "Birken",
    "Ring",
    "Neue ",
    "Kaiser",
];
const GERMAN_ENDS: &[&str] =
    &["straße", "straße", "str.", "strasse", "weg", "gasse", "platz", "allee", "ring", "ufer", "damm"];
const DUTCH: &[&str] = &["Kerk", "Dorps", "School", "Molen", "Prinsen", "Heren", "Stations", "Juliana", "Nieuwe "];
const DUTCH_ENDS: &[&str] = &["straat", "straat", "laan", "weg", "gracht", "plein", "kade"];
const NORTHERN: &[&str] = &["Stor", "Kungs", "Drottning", "Vester", "Øster", "Skol", "Kirke", "Sol"];
const NORTHERN_ENDS: &[&str] = &["gatan", "vägen", "gade", "vej", "gata", "veien", "katu", "tie"];
const FRENCH: &[&str] = &["rue", "rue", "avenue", "boulevard", "place", "chemin", "allée", "quai", "impasse"];
const FRENCH_OF: &[&str] = &[
    "de la Gare",
    "de la Paix",
    "des Fleurs",
    "du Moulin",
    "de l'Église",
    "des Lilas",
    "du Marché",
    "Victor Hugo",
    "de Paris",
    "des Écoles",
];
const SPANISH: &[&str] = &["Calle", "calle", "Avenida", "Plaza", "Paseo", "C/"];
const SPANISH_OF: &[&str] = &["Mayor", "Real", "del Sol", "de la Rosa", "San José", "de Alcalá", "Nueva", "de Toledo"];
const ITALIAN: &[&str] = &["Via", "via", "Piazza", "Corso", "Viale"];
const ITALIAN_OF: &[&str] =
    &["Roma", "Garibaldi", "Dante", "Mazzini", "della Vittoria", "dei Mille", "Giuseppe Verdi", "Marconi"];
const PARTICLES: &[&str] = &[
    "van", "van der", "van den", "de", "de la", "del", "von", "von der", "di", "da", "dos", "bin", "al", "el", "ter",
    "af", "zu",
];

/// A text and what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sentence {
    pub(super) text: String,
    pub(super) truth: Vec<(DataKind, Range<usize>)>,
}

impl Sentence {
    /// Puts another one behind it.
    pub(super) fn append(&mut self, other: &Sentence) {
        self.text.push(' ');
        let at = self.text.len();
        self.text.push_str(&other.text);
        self.truth.extend(other.truth.iter().map(|(kind, span)| (*kind, span.start + at..span.end + at)));
    }
}

/// What stands in the slots of templates.
pub(super) struct Slots<'a> {
    lists: &'a Lists,
    heads: Vec<String>,
}

impl<'a> Slots<'a> {
    pub(super) fn new(lists: &'a Lists) -> Self {
        let heads =
            lists.lower_words().into_iter().chain(lists.common.iter().map(String::as_str)).map(capital).collect();
        Self { lists, heads }
    }

    /// Every line of prose once, every template so often.
    pub(super) fn sentences(&self, rng: &mut StdRng, fills: u32) -> Result<Vec<Sentence>, TrainError> {
        let prose = self.lists.prose.iter().map(|text| Sentence { text: text.clone(), truth: Vec::new() });
        let mut all: Vec<Sentence> = prose.collect();
        for template in &self.lists.templates {
            for _ in 0..fills {
                all.push(self.fill(template, &mut StdRng::seed_from_u64(rng.random()))?);
            }
        }
        Ok(all)
    }

    fn fill(&self, template: &str, rng: &mut StdRng) -> Result<Sentence, TrainError> {
        let mut sentence = Sentence { text: String::new(), truth: Vec::new() };
        let mut rest = template;
        while let Some((before, (slot, behind))) = rest.split_once('{').and_then(|(a, b)| Some((a, b.split_once('}')?)))
        {
            sentence.text.push_str(before);
            let value = self.value(slot, rng).ok_or_else(|| TrainError::Slot(slot.to_owned()))?;
            let start = sentence.text.len();
            sentence.text.push_str(&value);
            let kind = match slot {
                "name" | "first" | "last" => Some(DataKind::Name),
                "street" => Some(DataKind::Address),
                "city" => Some(DataKind::Place),
                _ => None,
            };
            sentence.truth.extend(kind.map(|kind| (kind, start..sentence.text.len())));
            rest = behind;
        }
        sentence.text.push_str(rest);
        Ok(sentence)
    }

    fn value(&self, slot: &str, rng: &mut StdRng) -> Option<String> {
        Some(match slot {
            "name" => self.name(rng),
            "first" => self.first(rng),
            "last" => self.last(rng),
            "city" | "town" => some(&self.lists.cities, rng).to_owned(),
            "land" => some(&self.lists.lands, rng).to_owned(),
            "job" => some(&self.lists.jobs, rng).to_lowercase(),
            "word" => some(&self.lists.common, rng).to_owned(),
            "cap" => some(&self.heads, rng).to_owned(),
            "heading" => (0..rng.random_range(2..6)).map(|_| some(&self.heads, rng)).collect::<Vec<_>>().join(" "),
            "street" => self.street(rng),
            "org" => self.organisation(rng),
            "product" => {
                if rng.random_bool(0.6) {
                    pick(PRODUCTS, rng).to_owned()
                } else {
                    invented(rng)
                }
            }
            "title" => pick(TITLES, rng).to_owned(),
            "role" => pick(ROLES, rng).to_owned(),
            "tongue" => pick(TONGUES, rng).to_owned(),
            "month" => pick(MONTHS, rng).to_owned(),
            "day" => pick(DAYS, rng).to_owned(),
            "num" => number(0.7, (100, 99_999), rng),
            "code" => format!("{}{}", invented(rng).to_uppercase(), rng.random_range(10..9_999)),
            _ => return None,
        })
    }

    fn first(&self, rng: &mut StdRng) -> String {
        some(&self.lists.first, rng).to_owned()
    }

    fn last(&self, rng: &mut StdRng) -> String {
        some(&self.lists.last, rng).to_owned()
    }

    /// A name as it may be written: mostly first and last.
    fn name(&self, rng: &mut StdRng) -> String {
        let (first, last) = (self.first(rng), self.last(rng));
        let initial = |rng: &mut StdRng| some(&self.lists.first, rng).chars().next().unwrap_or('A');
        match rng.random_range(0..100) {
            0..8 => first,
            8..14 => format!("{first} {}. {last}", initial(rng)),
            14..18 => format!("{first} {} {last}", self.first(rng)),
            18..22 => format!("{last}, {first}"),
            22..26 => format!("{}. {last}", initial(rng)),
            26..28 => format!("{}. {}. {last}", initial(rng), initial(rng)),
            28..32 => format!("{first} {} {last}", pick(PARTICLES, rng)),
            32..35 => format!("{first} {last}-{}", self.last(rng)),
            35..38 => format!("{first} {last} {}", self.last(rng)),
            38..41 => format!("{first} {last}").to_uppercase(),
            41..43 => format!("{last} {first}"),
            43..45 => format!("{first}-{} {last}", self.first(rng)),
            45..46 => format!("{first} {last} Jr."),
            _ => format!("{first} {last}"),
        }
    }

    fn street(&self, rng: &mut StdRng) -> String {
        let n = number(0.8, (200, 12_000), rng);
        let letter = if rng.random_bool(0.1) { pick(&["a", "b", "c", "A", "B"], rng) } else { "" };
        let n = format!("{n}{letter}");
        let base = |rng: &mut StdRng| match rng.random_range(0..4) {
            0 => self.last(rng),
            1 => some(&self.lists.cities, rng).to_owned(),
            _ => pick(BASES, rng).to_owned(),
        };
        match rng.random_range(0..20) {
            0..7 => {
                let suffix = if rng.random_bool(0.8) { pick(SUFFIXES, rng) } else { some(&self.lists.streets, rng) };
                let side = if rng.random_bool(0.12) { pick(&["N ", "S. ", "West ", "East ", "NE "], rng) } else { "" };
                let unit = match rng.random_range(0..12) {
                    0 => format!(", Apt {}", rng.random_range(1..99)),
                    1 => format!(" Apt. {}B", rng.random_range(1..30)),
                    2 => format!(", Suite {}", rng.random_range(100..900)),
                    3 => format!(", Unit {}", rng.random_range(1..50)),
                    _ => String::new(),
                };
                format!("{n} {side}{} {suffix}{unit}", base(rng))
            }
            7 => format!("Flat {}, {n} {} {}", rng.random_range(1..40), base(rng), pick(SUFFIXES, rng)),
            8..11 => {
                let stem =
                    if rng.random_bool(0.3) { format!("{}-", self.last(rng)) } else { pick(GERMAN, rng).to_owned() };
                joined(&stem, pick(GERMAN_ENDS, rng), &n)
            }
            11 => format!("{} {} {n}", pick(&["Am", "An der", "Im", "Auf dem", "Zum"], rng), base(rng)),
            12 | 13 => joined(pick(DUTCH, rng), pick(DUTCH_ENDS, rng), &n),
            14 => joined(pick(NORTHERN, rng), pick(NORTHERN_ENDS, rng), &n),
            15 | 16 => {
                let of = if rng.random_bool(0.7) { pick(FRENCH_OF, rng).to_owned() } else { self.name_of_honour(rng) };
                format!("{n}{} {} {of}", pick(&["", "", " bis", ","], rng), pick(FRENCH, rng))
            }
            17 => {
                let of = if rng.random_bool(0.7) { pick(SPANISH_OF, rng).to_owned() } else { self.name_of_honour(rng) };
                format!("{} {of}{} {n}", pick(SPANISH, rng), pick(&["", ","], rng))
            }
            18 => {
                let of = if rng.random_bool(0.7) { pick(ITALIAN_OF, rng).to_owned() } else { self.name_of_honour(rng) };
                format!("{} {of}{} {n}", pick(ITALIAN, rng), pick(&["", ","], rng))
            }
            _ => format!("{} {} {n}", pick(&["ul.", "Rua", "Rua da", "Strada", "ulica"], rng), self.last(rng)),
        }
    }

    fn name_of_honour(&self, rng: &mut StdRng) -> String {
        format!("{} {}", self.first(rng), self.last(rng))
    }

    fn organisation(&self, rng: &mut StdRng) -> String {
        match rng.random_range(0..6) {
            0 => format!("{} {}", self.last(rng), pick(LEGAL, rng)),
            1 => format!("{} & {}", self.last(rng), self.last(rng)),
            2 => format!("{} {}", some(&self.lists.cities, rng), pick(HOUSES, rng)),
            3 => format!("St. {} {}", self.first(rng), pick(HOUSES, rng)),
            4 => format!("{} {}", invented(rng), pick(LEGAL, rng)),
            _ => invented(rng),
        }
    }
}

/// Mostly below the one end, else below the other.
fn number(mostly: f64, (low, high): (u32, u32), rng: &mut StdRng) -> String {
    let end = if rng.random_bool(mostly) { low } else { high };
    rng.random_range(1..end).to_string()
}

fn joined(stem: &str, end: &str, n: &str) -> String {
    let end = if stem.ends_with([' ', '-']) { capital(end) } else { end.to_owned() };
    format!("{stem}{end} {n}")
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// A word that is no one's.
fn invented(rng: &mut StdRng) -> String {
    const BEGIN: &[&str] = &[
        "Ba", "Fle", "Gro", "Hy", "Jo", "Mo", "Pra", "Ska", "Tho", "Wi", "Zen", "Kub", "Vor", "Tri", "Quo", "Nex",
        "Axi", "Syn", "Ori", "Plu", "Vel", "Cro", "Dyn", "Lum", "Ter",
    ];
    const END: &[&str] = &[
        "bit", "flow", "gate", "kit", "lang", "mesh", "point", "ster", "tora", "rix", "dex", "lio", "mata", "nova",
        "tek", "soft", "graph", "base", "cloud", "via", "gen", "nix",
    ];
    format!("{}{}", pick(BEGIN, rng), pick(END, rng))
}

fn pick<'a>(from: &[&'a str], rng: &mut StdRng) -> &'a str {
    from.choose(rng).copied().unwrap_or_default()
}

fn some<'a>(from: &'a [String], rng: &mut StdRng) -> &'a str {
    from.choose(rng).map_or("", String::as_str)
}
