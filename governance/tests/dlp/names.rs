//! Names and addresses in sentences that the tagger was not trained on.

use std::collections::BTreeMap;
use std::ops::Range;

use aivillage_governance::dlp::DataKind;

use crate::generate::{Row, Seeded};

const FIRST: &str = include_str!("../../data/names/first.txt");
const LAST: &str = include_str!("../../data/names/last.txt");

/// `{n}` a name, `{f}` and `{l}` its parts, `{a}` an address. The templates were widened after a look at what was missed here.
const NAMED: &[&str] = &[
    "The court heard {n} on the third day of the trial.",
    "Counsel for the defence, {n}, asked for an adjournment.",
    "{n} scored twice before half time.",
    "Coach {l} praised {n} after the match.",
    "Nobody at the school remembers {n}.",
    "The painting was given to the museum by {n} in spring.",
    "A neighbour, {n}, had noticed smoke.",
    "Payroll: please add {n} from next week on.",
    "hey {f}, did you see the mail from {f}?",
    "{f} will bring the salad and {f} the bread.",
    "Tell {f} that dinner is ready.",
    "Ticket opened by {n}: printer jams.",
    "Caller {n} wants a refund.",
    "Assignee: {n}",
    "Next of kin: {n} (daughter)",
    "Pt {n} reports mild pain after surgery.",
    "Seen by Dr. {l} in clinic, plan discussed with {n}.",
    "Mrs. {l} was accompanied by her son {f}.",
    "The biopsy of {n} showed nothing.",
    "Dear Mr. {l}, we regret the delay.",
    "With gratitude, {n}",
    "Interview with {n}, who paints houses for a living",
    "{n} resigned as treasurer; {n} takes over.",
    "I borrowed the ladder from {f}.",
    "The will names {n} as the only heir.",
    "Photo: {n}",
    "Passenger list: {n}, {n}, {n}",
    "Her teacher, Ms. {l}, gave her the book.",
    "The landlord is called {n}.",
    "Witnesses included {n} and an officer.",
    "My grandmother {f} baked on Saturdays.",
    "We buried {n} beside the chapel.",
    "Is that you, {f}?",
    "Account manager {n} will take care of it.",
    "Translated from the Danish by {n}",
    "{n} hat gestern angerufen.",
    "Frau {l} kommt um neun.",
    "Le docteur {l} est en vacances.",
];
const ADDRESSED: &[&str] = &[
    "Please leave the keys at {a}.",
    "An explosion was heard near {a} last night.",
    "Your technician will visit {a} between nine and noon.",
    "He gave {a} as his residence.",
    "The clinic moved from its old rooms to {a}.",
    "Pickup: {a}",
    "I have lived at {a} since the war.",
    "The deed for {a} was lost.",
];
/// Sentences that have changed nothing: written before a score on them was seen, and looked at last.
const FRESH: &[&str] = &[
    "Bail for {n} was set on Thursday.",
    "Minutes taken by {n}, seconded by {n}.",
    "{n} has forgotten the password again.",
    "Could someone drive {f} home?",
    "Lost property: a scarf, claimed by {n}",
    "We are sorry to hear that {n} has passed away.",
    "The scholarship went to {n} this year.",
    "Ms. {l} teaches chemistry; her assistant is {n}.",
    "I am writing on behalf of my late husband {n}.",
    "{f}, lunch?",
    "The dog belongs to {n} from upstairs.",
    "Lieutenant {l} reported to {n}.",
    "On call tonight: {n}",
    "Consent was given by {n} (guardian).",
    "A portrait of {n} hangs in the hall.",
    "{n} and his twin {f} were separated at birth.",
    "Invoice contact: {n}, accounts department",
    "According to his sister {f}, he slept badly.",
    "Vaccination record for {n}",
    "Please welcome {n} to the team!",
    "The plaintiff, {n}, seeks damages.",
    "Did {f} mention the leak?",
    "Prof. {l} will chair the session with {n}.",
    "{n} commented on your post.",
    "Best wishes from {f} and {f}",
    "The ashes of {n} were scattered at sea.",
    "Herr {l} hat den Vertrag gekündigt.",
    "Madame {l} habite au rez-de-chaussée.",
];
const FRESH_ADDRESSED: &[&str] = &[
    "Send the bailiff to {a}.",
    "A break-in at {a} was reported.",
    "The nurse visits {a} every morning.",
    "Billing: {a}",
    "Their bakery opened at {a} in May.",
    "She was last seen leaving {a}.",
];
/// Ordinary text with capitals: nobody is named.
const NOBODY: &[&str] = &[
    "The bridge is old.",
    "May I come on Sunday?",
    "Will the ferry run in August?",
    "The Art of Computer Programming is a book.",
    "Open Settings, then General, then About.",
    "Our Terms and Conditions have changed.",
    "Kafka and Cassandra run on the same cluster.",
    "The Paris Agreement was signed in December.",
    "Berlin and Rome are capitals.",
    "Mark the cells and press Delete.",
    "The Bill passed the Senate on Tuesday.",
    "Summer School of Marine Biology",
    "Faith, hope and charity",
    "Grant me access to the repository.",
    "Chase Bank raised its rates.",
    "A Gaussian prior with unit variance",
    "Rust, Go and Swift are compiled.",
    "Lake Superior freezes in January.",
    "The Red Cross sent blankets.",
    "Happy New Year!",
    "INFO Starting worker pool",
    "Part Two: The Long Way Home",
    "Lyme disease and Hodgkin lymphoma",
    "Windows Server, Red Hat and Amazon Linux",
    "Wall Street closed higher.",
    "Price per Unit, Total Amount, Due Date",
    "Romeo and Juliet is played at the theatre.",
    "Victoria Falls and Niagara Falls",
    "Frost is expected. Drive with care.",
    "Add salt. Stir well. Serve warm.",
    "Das Wetter ist schön.",
    "Die Firma hat ihren Sitz im Norden.",
    "Rose bushes need sun.",
    "Jack up the car before you change the wheel.",
    "The Young Vic and the Old Vic",
    "English, French and Italian lessons",
    "Mercury, Venus and Mars",
    "The Department of Health advises caution.",
    "Chapter and verse",
    "Dean's list and Honor Roll",
];

struct Lists {
    first: Vec<&'static str>,
    last: Vec<&'static str>,
}

/// Rows with names and addresses, `each` of a sentence.
pub(crate) fn rows(seed: u64, each: usize) -> Vec<Row> {
    filled((NAMED, ADDRESSED), seed, each)
}

/// The same of the sentences that have changed nothing.
pub(crate) fn fresh(seed: u64, each: usize) -> Vec<Row> {
    filled((FRESH, FRESH_ADDRESSED), seed, each)
}

fn filled((named, addressed): (&[&str], &[&str]), seed: u64, each: usize) -> Vec<Row> {
    let (mut seeded, lists) =
        (Seeded::new(seed), Lists { first: FIRST.lines().collect(), last: LAST.lines().collect() });
    let sentences = named.iter().chain(addressed);
    sentences.flat_map(|sentence| (0..each).map(|_| row(sentence, &lists, &mut seeded)).collect::<Vec<_>>()).collect()
}

/// The same sentences with names that no list has.
pub(crate) fn unlisted(seed: u64, each: usize) -> Vec<Row> {
    const FIRST: [&str; 8] =
        ["Thandwen", "Oriselle", "Zebulind", "Marrikka", "Quendrick", "Ysolwyn", "Abrexi", "Faolinne"];
    const LAST: [&str; 8] =
        ["Ostervold", "Krimbaugh", "Tellanqvist", "Brandowitz", "Mussardelli", "Okonwerra", "Vantrell", "Hasselbrim"];
    let (mut seeded, lists) = (Seeded::new(seed), Lists { first: FIRST.to_vec(), last: LAST.to_vec() });
    NAMED
        .iter()
        .flat_map(|sentence| (0..each).map(|_| row(sentence, &lists, &mut seeded)).collect::<Vec<_>>())
        .collect()
}

/// Each sentence in which nobody is.
pub(crate) fn nobody() -> Vec<Row> {
    NOBODY.iter().map(|text| Row { text: (*text).to_owned(), truth: Vec::new() }).collect()
}

fn row(sentence: &str, lists: &Lists, seeded: &mut Seeded) -> Row {
    let (mut text, mut truth, mut rest) = (String::new(), Vec::new(), sentence);
    while let Some((before, behind)) = rest.split_once('{') {
        let (slot, behind) = behind.split_once('}').expect("each slot is closed");
        text.push_str(before);
        let (kind, value) = match slot {
            "n" => (DataKind::Name, name(lists, seeded)),
            "f" => (DataKind::Name, seeded.pick(&lists.first).to_owned()),
            "l" => (DataKind::Name, seeded.pick(&lists.last).to_owned()),
            _ => (DataKind::Address, address(seeded)),
        };
        truth.push((kind, text.len()..text.len() + value.len()));
        text.push_str(&value);
        rest = behind;
    }
    text.push_str(rest);
    Row { text, truth }
}

fn name(lists: &Lists, seeded: &mut Seeded) -> String {
    let (first, last) = (seeded.pick(&lists.first), seeded.pick(&lists.last));
    match seeded.below(10) {
        0 => format!("{first} {}. {last}", seeded.pick(&["A", "J", "M", "R"])),
        1 => format!("{}. {last}", seeded.pick(&["B", "K", "S", "T"])),
        2 => first.to_owned(),
        3 => format!("{first} {} {last}", seeded.pick(&["van", "de", "von"])),
        _ => format!("{first} {last}"),
    }
}

fn address(seeded: &mut Seeded) -> String {
    let n = 1 + seeded.below(240);
    match seeded.below(6) {
        0 => format!(
            "{n} {} {}",
            seeded.pick(&["Juniper", "Foundry", "Larch", "Abbey"]),
            seeded.pick(&["Street", "Road", "Lane", "Drive"])
        ),
        1 => format!("{n} {} Ave, Apt {}", seeded.pick(&["Lincoln", "Harrison", "Jackson"]), 1 + seeded.below(40)),
        2 => format!(
            "{}{} {n}",
            seeded.pick(&["Ahorn", "Post", "Wiesen", "Burg"]),
            seeded.pick(&["straße", "weg", "gasse", "allee"])
        ),
        3 => format!(
            "{n} {} {}",
            seeded.pick(&["rue", "avenue", "boulevard"]),
            seeded.pick(&["de la République", "des Roses", "Pasteur"])
        ),
        4 => format!(
            "{} {} {n}",
            seeded.pick(&["Calle", "Via", "Avenida"]),
            seeded.pick(&["Colón", "Manzoni", "Libertad"])
        ),
        _ => {
            format!("{}{} {n}", seeded.pick(&["Linde", "Haven", "Beatrix"]), seeded.pick(&["straat", "laan", "plein"]))
        }
    }
}

/// Findings per thousand words of texts that are not about people, by text; and what they are.
pub(crate) fn rates(
    find: impl Fn(&str) -> Vec<(DataKind, Range<usize>)>,
) -> BTreeMap<&'static str, (f64, Vec<String>)> {
    const TEXTS: [(&str, &str); 4] = [
        ("README.md", include_str!("../../../README.md")),
        ("ARCHITECTURE.md", include_str!("../../../ARCHITECTURE.md")),
        ("SECURITY.md", include_str!("../../../SECURITY.md")),
        ("heldout_benign.txt", include_str!("../moderation/heldout_benign.txt")),
    ];
    let rate = |(name, text): (&'static str, &str)| {
        let names: Vec<String> = find(text)
            .into_iter()
            .filter(|(kind, _)| matches!(kind, DataKind::Name | DataKind::Address))
            .map(|(_, span)| text[span].to_owned())
            .collect();
        let words = u32::try_from(text.split_whitespace().count()).expect("few words");
        (name, (f64::from(u32::try_from(names.len()).expect("few names")) * 1_000.0 / f64::from(words), names))
    };
    TEXTS.into_iter().map(rate).collect()
}
