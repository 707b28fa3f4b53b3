//! Folds visible cells: look-alikes, case, and the disguises of words, until nothing changes.

use super::Cell;
use super::chars;

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

/// Whether a letter stands alone at `at`.
fn is_single(cells: &[Cell], at: usize) -> bool {
    let is_word = |at: usize| cells.get(at).is_some_and(|cell| cell.ch.is_alphanumeric());
    cells.get(at).is_some_and(|cell| cell.ch.is_alphabetic()) && !is_word(at + 1) && (at == 0 || !is_word(at - 1))
}

/// Joins three or more single letters with one character between each (`k i l l`, `k.i.l.l`).
fn join_letters(cells: &[Cell]) -> Vec<Cell> {
    let mut joined = Vec::with_capacity(cells.len());
    let mut at = 0;
    while at < cells.len() {
        let mut letters = 0;
        while is_single(cells, at + 2 * letters) {
            letters += 1;
        }
        if letters < 3 {
            joined.push(cells[at]);
            at += 1;
            continue;
        }
        joined.extend((0..letters).map(|n| cells[at + 2 * n]));
        at += 2 * letters - 1;
    }
    joined
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

/// Shortens runs of three or more equal letters to two, or to one where a word hardly has two.
fn squeeze(cells: &[Cell]) -> Vec<Cell> {
    let mut kept = Vec::with_capacity(cells.len());
    let mut behind = 0;
    for run in cells.chunk_by(|a, b| a.ch == b.ch) {
        behind += run.len();
        let is_last = cells.get(behind).is_none_or(|cell| !cell.ch.is_alphanumeric());
        let most = match run[0].ch {
            ch if run.len() < 3 || !ch.is_alphabetic() => run.len(),
            ch if chars::is_single(ch, is_last) => 1,
            _ => 2,
        };
        kept.extend_from_slice(&run[..most]);
        if let (Some(last), true) = (kept.last_mut(), most < run.len()) {
            last.end = run[run.len() - 1].end;
        }
    }
    kept
}
