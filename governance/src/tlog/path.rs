//! Names of the files of a log. C2SP tlog-tiles, "Merkle Tree" and "Log Entries".

use std::fmt;

/// Hashes in a full tile, entries in a full bundle.
pub(crate) const WIDTH: u64 = 256;

/// A file of the tree, by its place in it; shown as `tile/<L>/<N>[.p/<W>]` with `N` in groups of three digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TilePath {
    /// Level of the tile; `None` is a bundle of entries.
    pub level: Option<u8>,
    /// Which tile of its level.
    pub index: u64,
    /// Width of a partial tile, 1 to 255; `None` is a full one.
    pub width: Option<u8>,
}

impl TilePath {
    /// A full tile of hashes.
    #[must_use]
    pub fn tile(level: u8, index: u64) -> Self {
        Self { level: Some(level), index, width: None }
    }

    /// A full bundle of entries.
    #[must_use]
    pub fn bundle(index: u64) -> Self {
        Self { level: None, index, width: None }
    }

    /// The same place with `width` hashes or entries.
    #[must_use]
    pub(crate) fn partial(self, width: u8) -> Self {
        Self { width: Some(width), ..self }
    }

    /// Reads a name; exactly the names that are shown are understood.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let (level, rest) = name.strip_prefix("tile/")?.split_once('/')?;
        let level = if level == "entries" { None } else { Some(level.parse().ok().filter(|level| *level < 8)?) };
        let (groups, width) = match rest.split_once(".p/") {
            Some((groups, width)) => (groups, Some(width.parse().ok().filter(|width| *width > 0)?)),
            None => (rest, None),
        };
        let mut index = 0_u64;
        for group in groups.split('/') {
            let digits = group.strip_prefix('x').unwrap_or(group);
            index = index.checked_mul(1000)?.checked_add(digits.parse().ok()?)?;
        }
        let path = Self { level, index, width };
        (path.to_string() == name).then_some(path)
    }

    /// The first entry that the file has a part in.
    pub(crate) fn first_entry(&self) -> u64 {
        let above = 8 * (u32::from(self.level.unwrap_or(0)) + 1);
        self.index.checked_shl(above).unwrap_or(u64::MAX)
    }
}

impl fmt::Display for TilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.level {
            Some(level) => write!(f, "tile/{level}")?,
            None => write!(f, "tile/entries")?,
        }
        let mut groups = vec![format!("{:03}", self.index % 1000)];
        let mut above = self.index / 1000;
        while above > 0 {
            groups.push(format!("x{:03}", above % 1000));
            above /= 1000;
        }
        groups.iter().rev().try_for_each(|group| write!(f, "/{group}"))?;
        self.width.map_or(Ok(()), |width| write!(f, ".p/{width}"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_those_of_the_specification() {
        // C2SP tlog-tiles: tile 1234067 is x001/x234/067.
        assert_eq!(TilePath::tile(0, 1_234_067).to_string(), "tile/0/x001/x234/067");
        assert_eq!(TilePath::tile(1, 1).partial(17).to_string(), "tile/1/001.p/17");
        assert_eq!(TilePath::bundle(273).partial(112).to_string(), "tile/entries/273.p/112");
    }

    #[test]
    fn other_names_are_refused() {
        for name in ["tile/0/67", "tile/0/1/067", "tile/8/000", "tile/0/000.p/0", "tile/0/000.p/256", "tile/0/x000/001"]
        {
            assert_eq!(TilePath::parse(name), None, "{name}");
        }
        for name in ["checkpoint", "tile/entries", "tile/0/-01", "tile/0/+01", "tile/0/000.p/01", "tile//000"] {
            assert_eq!(TilePath::parse(name), None, "{name}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn names_round_trip(level in proptest::option::of(0..8_u8), index in 0..1_u64 << 50, width in proptest::option::of(1..=255_u8)) {
            let path = TilePath { level, index, width };
            prop_assert_eq!(TilePath::parse(&path.to_string()), Some(path));
        }
    }
}
