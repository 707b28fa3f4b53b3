//! How far a source is believed before anything is known about it: the mean of a Beta prior by its class.

/// Put by someone this village knows: Beta(6, 2).
const AUTHENTICATED: f32 = 0.75;
/// Found on the web: Beta(2, 2).
const WEB: f32 = 0.5;

/// Trust in a document's source, in `[0, 1]`. Who puts a document is always known here; what is on a web page is the
/// page's word, whoever puts it.
#[must_use]
pub fn prior(url: Option<&str>) -> f32 {
    if url.is_some_and(|url| url.starts_with("http")) { WEB } else { AUTHENTICATED }
}

/// Whether nobody whom this village knows answers for a source: its words are told, and never followed.
#[must_use]
pub fn is_foreign(trust: f32) -> bool {
    trust < AUTHENTICATED
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_believed_less_than_people() {
        assert!(prior(Some("https://example.org/x")) < prior(Some("notes.md")));
        assert!(is_foreign(prior(Some("https://example.org/x"))) && !is_foreign(prior(None)));
    }
}
