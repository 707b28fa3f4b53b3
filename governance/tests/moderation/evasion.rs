//! Twelve disguises of a text.

/// A disguise and its name.
pub(crate) type Transform = (&'static str, fn(&str) -> Vec<String>);

/// Each gives the messages in which a text is sent; all but one send one.
pub(crate) const TRANSFORMS: [Transform; 12] = [
    ("homoglyph", |text| vec![map(text, homoglyph)]),
    ("zero width", |text| vec![between_letters(text, "\u{200b}")]),
    ("leet", |text| vec![map(text, leet)]),
    ("spacing", |text| {
        vec![words(text, |word| word.chars().map(String::from).collect::<Vec<_>>().join(" ")).join("   ")]
    }),
    ("repetition", |text| vec![words(text, repeat).join(" ")]),
    ("case", |text| vec![alternate(text)]),
    ("diacritics", |text| vec![map(text, |ch| if "aeiou".contains(ch) { format!("{ch}\u{301}") } else { ch.into() })]),
    ("bidi", |text| vec![words(text, |word| format!("\u{202d}{word}\u{202c}")).join(" ")]),
    ("tag characters", |text| vec![format!("Have a nice day{}", map(text, tag))]),
    ("base64", |text| vec![format!("see {}", data_encoding::BASE64.encode(text.as_bytes()))]),
    ("split messages", split),
    ("emoji padding", |text| vec![words(text, str::to_owned).join(" 🙂 ")]),
];

fn map(text: &str, each: impl Fn(char) -> String) -> String {
    text.chars().map(each).collect()
}

fn words(text: &str, each: impl Fn(&str) -> String) -> Vec<String> {
    text.split_whitespace().map(each).collect()
}

fn homoglyph(ch: char) -> String {
    match ch {
        'a' => 'а',
        'c' => 'с',
        'e' => 'е',
        'i' => 'і',
        'o' => 'о',
        'p' => 'р',
        'x' => 'х',
        'y' => 'у',
        other => other,
    }
    .into()
}

fn leet(ch: char) -> String {
    match ch {
        'a' => '4',
        'e' => '3',
        'i' => '1',
        'o' => '0',
        other => other,
    }
    .into()
}

fn tag(ch: char) -> String {
    u32::from(ch).checked_add(0xe0000).filter(|_| ch.is_ascii()).and_then(char::from_u32).unwrap_or(ch).into()
}

fn between_letters(text: &str, what: &str) -> String {
    map(text, |ch| if ch.is_alphabetic() { format!("{ch}{what}") } else { ch.into() })
}

/// The middle letter of longer words four times.
fn repeat(word: &str) -> String {
    let middle = word.chars().count() / 2;
    let times = |n, ch: char| if n == middle && middle > 1 && ch.is_alphabetic() { 4 } else { 1 };
    word.chars().enumerate().flat_map(|(n, ch)| std::iter::repeat_n(ch, times(n, ch))).collect()
}

fn alternate(text: &str) -> String {
    let each = |(n, ch): (usize, char)| if n % 2 == 0 { ch.to_ascii_uppercase() } else { ch.to_ascii_lowercase() };
    text.chars().enumerate().map(each).collect()
}

fn split(text: &str) -> Vec<String> {
    let at = text.floor_char_boundary(text.len() / 2);
    vec![text[..at].to_owned(), text[at..].to_owned()]
}
