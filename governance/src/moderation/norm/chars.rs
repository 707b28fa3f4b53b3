//! What single characters are: invisible, a diacritic, a letter in disguise.

use unicode_security::confusable_detection::skeleton;

/// Control characters of ASCII that are not white space.
pub(super) fn is_control(byte: u8) -> bool {
    byte.is_ascii_control() && !byte.is_ascii_whitespace()
}

/// Default-ignorable code points (Unicode 16, `DerivedCoreProperties`), controls, private and unassigned format
/// characters: a reader does not see them.
pub(super) fn is_invisible(ch: char) -> bool {
    (ch.is_control() && !ch.is_whitespace())
        || matches!(ch,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fff8}' | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// Marks of the blocks of combining diacritics. Marks that spell vowels in other scripts are not among them.
pub(super) fn is_diacritic(ch: char) -> bool {
    matches!(ch,
        '\u{300}'..='\u{36f}' | '\u{483}'..='\u{489}' | '\u{1ab0}'..='\u{1aff}' | '\u{1dc0}'..='\u{1dff}'
        | '\u{20d0}'..='\u{20ff}' | '\u{fe20}'..='\u{fe2f}')
}

/// Flags of England, Scotland and Wales: the only ones that fonts show and that are spelt with tag characters (UTS #51, RGI).
pub(super) const FLAGS: [&str; 3] = [
    "\u{1f3f4}\u{e0067}\u{e0062}\u{e0065}\u{e006e}\u{e0067}\u{e007f}",
    "\u{1f3f4}\u{e0067}\u{e0062}\u{e0073}\u{e0063}\u{e0074}\u{e007f}",
    "\u{1f3f4}\u{e0067}\u{e0062}\u{e0077}\u{e006c}\u{e0073}\u{e007f}",
];

/// The ASCII character that a tag character spells.
pub(super) fn tag(ch: char) -> Option<char> {
    let code = u32::from(ch).checked_sub(0xe_0000)?;
    u8::try_from(code).ok().filter(|byte| matches!(byte, 0x20..=0x7e)).map(char::from)
}

/// Small capitals, in the order of their letters; x and q have none.
const SMALL_CAPITALS: [(char, char); 24] = [
    ('ᴀ', 'a'),
    ('ʙ', 'b'),
    ('ᴄ', 'c'),
    ('ᴅ', 'd'),
    ('ᴇ', 'e'),
    ('ꜰ', 'f'),
    ('ɢ', 'g'),
    ('ʜ', 'h'),
    ('ɪ', 'i'),
    ('ᴊ', 'j'),
    ('ᴋ', 'k'),
    ('ʟ', 'l'),
    ('ᴍ', 'm'),
    ('ɴ', 'n'),
    ('ᴏ', 'o'),
    ('ᴘ', 'p'),
    ('ʀ', 'r'),
    ('ꜱ', 's'),
    ('ᴛ', 't'),
    ('ᴜ', 'u'),
    ('ᴠ', 'v'),
    ('ᴡ', 'w'),
    ('ʏ', 'y'),
    ('ᴢ', 'z'),
];

/// Small capitals, letters in boxes and circles, and regional indicators, which have no compatibility form.
pub(super) fn plain(ch: char) -> char {
    for first in [0x1_f150, 0x1_f170, 0x1_f1e6] {
        let letter = u32::from(ch).checked_sub(first).and_then(|n| u8::try_from(n).ok()).filter(|n| *n < 26);
        if let Some(n) = letter {
            return char::from(b'a' + n);
        }
    }
    SMALL_CAPITALS.iter().find(|(small, _)| *small == ch).map_or(ch, |(_, letter)| *letter)
}

/// The ASCII letter that a letter of another script looks like (UTS 39).
pub(super) fn look_alike(ch: char) -> Option<char> {
    if ch.is_ascii() {
        return None;
    }
    let mut buffer = [0; 4];
    let mut shape = skeleton(ch.encode_utf8(&mut buffer));
    match (shape.next(), shape.next()) {
        (Some(letter), None) if letter.is_ascii_alphabetic() => Some(letter),
        _ => None,
    }
}

/// The same among ASCII letters, where what resembles a small capital (`к`, `т`) is meant as a letter too.
pub(super) fn look_alike_among_ascii(ch: char) -> Option<char> {
    look_alike(ch).or(match ch {
        'в' => Some('b'),
        'к' | 'κ' | 'ĸ' => Some('k'),
        'м' => Some('m'),
        'н' => Some('h'),
        'т' | 'τ' => Some('t'),
        'и' | 'η' => Some('n'),
        'ш' | 'ω' => Some('w'),
        'ν' => Some('v'),
        _ => None,
    })
}

/// The letter that a digit or sign stands for between letters.
pub(super) fn leet(ch: char) -> Option<char> {
    Some(match ch {
        '0' => 'o',
        '1' | '!' => 'i',
        '3' => 'e',
        '4' | '@' => 'a',
        '5' | '$' => 's',
        '7' | '+' => 't',
        '8' => 'b',
        _ => return None,
    })
}
