//! Folds visible cells: look-alikes, case, and the disguises of words, until nothing changes.

use super::{Cell, chars, doubles};

/// Rounds of folding. Each round that joins letters leaves at most a third of them, so a view is stable after fewer.
const ROUNDS: usize = 16;

pub(super) fn fold(mut cells: Vec<Cell>) -> Vec<Cell> {
    for _ in 0..ROUNDS {
        // A small letter can look like one that its capital does not look like, and a digit read as a letter makes a
        // word mixed: one round can bring work for the next.
        let plain = lower_case(look_alikes(cells.clone()));
        let next = squeeze(&leet(join_letters(&plain)));
        if next == cells {
            break;
        }
        cells = next;
    }
    cells
}

/// Words that mix ASCII letters with others, or consist of letters that look like ASCII, become ASCII where they can.
fn look_alikes(mut cells: Vec<Cell>) -> Vec<Cell> {
    if cells.iter().all(|cell| cell.ch.is_ascii()) {
        return cells;
    }
    for word in cells.chunk_by_mut(|a, b| a.ch.is_alphabetic() == b.ch.is_alphabetic()) {
        if word.iter().all(|cell| cell.ch.is_ascii() || !cell.ch.is_alphabetic()) {
            continue;
        }
        let is_mixed = word.iter().any(|cell| cell.ch.is_ascii());
        if is_mixed || word.iter().all(|cell| chars::look_alike(cell.ch).is_some()) {
            for cell in word {
                let letter = if is_mixed { chars::look_alike_among_ascii(cell.ch) } else { chars::look_alike(cell.ch) };
                cell.ch = letter.unwrap_or(cell.ch);
            }
        }
    }
    cells
}

fn lower_case(cells: Vec<Cell>) -> Vec<Cell> {
    if cells.iter().all(|cell| cell.ch.is_ascii()) {
        return cells.into_iter().map(|cell| Cell { ch: cell.ch.to_ascii_lowercase(), ..cell }).collect();
    }
    let lower = |cell: Cell| cell.ch.to_lowercase().map(move |ch| Cell { ch, ..cell });
    cells.into_iter().flat_map(lower).collect()
}

/// Most characters of a word that is spelt out; what is longer is several.
const SPELT: usize = 64;

/// What is between letters that stand apart.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Gap {
    Space,
    LineEnd,
    Sign,
}

fn gap(cell: Option<&Cell>) -> Gap {
    match cell.map(|cell| cell.ch) {
        None | Some('\n' | '\r') => Gap::LineEnd,
        Some(ch) if ch.is_whitespace() => Gap::Space,
        Some(_) => Gap::Sign,
    }
}

fn is_letter(cells: &[Cell], at: usize) -> bool {
    cells.get(at).is_some_and(|cell| cell.ch.is_alphabetic())
}

/// Whether a letter, a digit or an apostrophe stands alone at `at`.
fn is_apart(cells: &[Cell], at: usize) -> bool {
    let is_word = |at: usize| cells.get(at).is_some_and(|cell| cell.ch.is_alphanumeric());
    let is_lone = !is_word(at + 1) && (at == 0 || !is_word(at - 1));
    is_lone && (is_word(at) || cells.get(at).is_some_and(|cell| matches!(cell.ch, '\'' | '’')))
}

/// How many characters stand apart from the letter at `at` on, with gaps of one kind (`d o n ' t`, `k.i-1.l`), up to the
/// last letter.
fn apart(cells: &[Cell], at: usize) -> usize {
    if !is_letter(cells, at) {
        return 0;
    }
    let kind = gap(cells.get(at + 1));
    let is_next = |n: &usize| is_apart(cells, at + 2 * n) && (*n == 0 || gap(cells.get(at + 2 * n - 1)) == kind);
    let count = (0..SPELT).take_while(is_next).count();
    (0..count).rev().find(|n| is_letter(cells, at + 2 * n)).map_or(0, |last| last + 1)
}

/// Whether characters that stand apart are a word: at least three letters and not mostly digits.
fn is_spelt(cells: &[Cell], at: usize, count: usize) -> bool {
    let letters = (0..count).filter(|n| is_letter(cells, at + 2 * n)).count();
    letters >= 3 && 2 * letters > count
}

/// Joins letters that stand apart (`k i l l`). In a text with such a word two letters between wide gaps (`m y   d o g`)
/// are a word too.
fn join_letters(cells: &[Cell]) -> Vec<Cell> {
    let mut joined = Vec::with_capacity(cells.len());
    let mut spells = None;
    let mut at = 0;
    while at < cells.len() {
        let count = apart(cells, at);
        let is_pair = count == 2 && is_wide(cells, at) && *spells.get_or_insert_with(|| has_spelt(cells));
        if !is_pair && !is_spelt(cells, at, count) {
            joined.push(cells[at]);
            at += 1;
            continue;
        }
        joined.extend((0..count).map(|n| cells[at + 2 * n]));
        at += 2 * count - 1;
    }
    joined
}

fn has_spelt(cells: &[Cell]) -> bool {
    (0..cells.len()).any(|at| is_spelt(cells, at, apart(cells, at)))
}

/// Whether two letters with a space between them have more than a space around them.
fn is_wide(cells: &[Cell], at: usize) -> bool {
    let is_open = |near: Gap, far: Gap| near == Gap::LineEnd || near == Gap::Space && far != Gap::Sign;
    let before = |n: usize| gap(at.checked_sub(n).and_then(|at| cells.get(at)));
    let behind = |n: usize| gap(cells.get(at + 2 + n));
    gap(cells.get(at + 1)) == Gap::Space && is_open(before(1), before(2)) && is_open(behind(1), behind(2))
}

/// Replaces digits and signs by letters in words that hold both.
fn leet(mut cells: Vec<Cell>) -> Vec<Cell> {
    let is_part = |cell: &Cell| cell.ch.is_alphanumeric() || chars::leet(cell.ch).is_some();
    for run in cells.chunk_by_mut(|a, b| is_part(a) == is_part(b)) {
        if let Some(word) = trimmed(run) {
            unleet(word);
        }
    }
    cells
}

/// A run without the signs at its ends that are punctuation there; a leading `$` is a letter (`$hit`).
fn trimmed(run: &mut [Cell]) -> Option<&mut [Cell]> {
    let start = run.iter().position(|cell| !matches!(cell.ch, '!' | '+' | '@'))?;
    let end = run.iter().rposition(|cell| !matches!(cell.ch, '!' | '+' | '@' | '$'))?;
    run.get_mut(start..=end)
}

fn unleet(word: &mut [Cell]) {
    let letters = word.iter().filter(|cell| cell.ch.is_alphabetic()).count();
    let signs = word.iter().filter(|cell| chars::leet(cell.ch).is_some()).count();
    // Other digits, or many more digits than letters: a number with a unit, a version, a name of a thing.
    if signs == 0 || 2 * letters < signs || letters + signs < word.len() {
        return;
    }
    for cell in word {
        cell.ch = chars::leet(cell.ch).unwrap_or(cell.ch);
    }
}

/// Shortens runs of three or more equal letters.
fn squeeze(cells: &[Cell]) -> Vec<Cell> {
    let mut kept = Vec::with_capacity(cells.len());
    for word in cells.chunk_by(|a, b| a.ch.is_alphabetic() == b.ch.is_alphabetic()) {
        let is_long = |three: &[Cell]| three[0].ch == three[1].ch && three[1].ch == three[2].ch;
        if word[0].ch.is_alphabetic() && word.windows(3).any(is_long) {
            shorten(word, &mut kept);
        } else {
            kept.extend_from_slice(word);
        }
    }
    kept
}

/// Long runs of a word that are tried both ways.
const TRIED: usize = 4;

/// Appends a word with its long runs as two letters where that makes an English word, else as one. In other scripts
/// two stay.
fn shorten(word: &[Cell], kept: &mut Vec<Cell>) {
    let runs: Vec<&[Cell]> = word.chunk_by(|a, b| a.ch == b.ch).collect();
    let tried = runs.iter().filter(|run| run.len() >= 3).count().min(TRIED);
    let spell = |doubled: u32| {
        let mut nth = 0;
        runs.iter().map(move |run| {
            let is_long = run.len() >= 3;
            let most = if !is_long {
                run.len()
            } else if doubled >> nth & 1 == 1 || !run[0].ch.is_ascii() {
                2
            } else {
                1
            };
            nth += u32::from(is_long && nth < 31);
            (*run, most)
        })
    };
    let is_word = |doubled: &u32| {
        let text: String = spell(*doubled).flat_map(|(run, most)| run[..most].iter().map(|cell| cell.ch)).collect();
        doubles::is_word(&text)
    };
    let doubled = (1..1 << tried).find(is_word).unwrap_or_default();
    for (run, most) in spell(doubled) {
        kept.extend_from_slice(&run[..most]);
        if let (Some(last), Some(end)) = (kept.last_mut(), run.last()) {
            last.end = end.end.max(last.end);
        }
    }
}
