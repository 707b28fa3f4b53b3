//! Values that a person writes with a unit: [`Period`] (`"30s"`), [`Size`] (`"64MiB"`) and [`Rate`] (`"200/s"`).
//!
//! A bare number is refused: `timeout = 30` leaves the reader guessing the unit.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A value that is not in the form its type asks for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{value:?} is not {expected}")]
pub struct ValueError {
    value: String,
    expected: &'static str,
}

/// A length of time, written with a unit: `"250ms"`, `"30s"`, `"1h 30m"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Period(pub Duration);

impl Period {
    const EXPECTED: &str = "a period such as \"250ms\", \"30s\" or \"1h 30m\"";

    /// A period of whole seconds.
    #[must_use]
    pub const fn from_secs(secs: u64) -> Self {
        Self(Duration::from_secs(secs))
    }

    /// A period of whole milliseconds.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    /// The same length as a [`Duration`].
    #[must_use]
    pub const fn get(self) -> Duration {
        self.0
    }
}

impl From<Period> for Duration {
    fn from(period: Period) -> Self {
        period.0
    }
}

impl From<Duration> for Period {
    fn from(duration: Duration) -> Self {
        Self(duration)
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

impl FromStr for Period {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        // humantime takes "0" for zero; without a unit it would be the only bare number allowed.
        let parsed = if text.trim() == "0" { None } else { humantime::parse_duration(text).ok() };
        parsed.map(Self).ok_or_else(|| ValueError { value: text.to_owned(), expected: Self::EXPECTED })
    }
}

/// A number of bytes, written with a unit: `"256KiB"`, `"64MiB"`, `"1.5GB"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Size(pub u64);

impl Size {
    const EXPECTED: &str = "a size such as \"256KiB\", \"64MiB\" or \"1GB\"";

    /// A size of whole kibibytes.
    #[must_use]
    pub const fn from_kib(kib: u64) -> Self {
        Self(kib * 1024)
    }

    /// A size of whole mebibytes.
    #[must_use]
    pub const fn from_mib(mib: u64) -> Self {
        Self(mib * 1024 * 1024)
    }

    /// The number of bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// The number of bytes as a length in memory, capped at what this machine can address.
    #[must_use]
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl fmt::Display for Size {
    /// Writes the largest unit that divides the size, so that nothing is rounded away.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u64, &str); 4] = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        let unit = UNITS.iter().find(|(factor, _)| self.0 >= *factor && self.0.is_multiple_of(*factor));
        match unit {
            Some((factor, name)) => write!(f, "{}{name}", self.0 / factor),
            None => write!(f, "{}B", self.0),
        }
    }
}

impl FromStr for Size {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let has_unit = text.chars().any(char::is_alphabetic);
        let parsed = if has_unit { text.trim().parse::<bytesize::ByteSize>().ok() } else { None };
        parsed.map(|size| Self(size.0)).ok_or_else(|| ValueError { value: text.to_owned(), expected: Self::EXPECTED })
    }
}

/// A token bucket: `count` every `per`, at most `burst` at once. Written `"200/s"` or `"1/s burst 10"`.
///
/// Without `burst` the bucket holds what one unit of time brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    /// Tokens that arrive in each `per`.
    pub count: NonZeroU32,
    /// The unit of time.
    pub per: RateUnit,
    /// Tokens a full bucket holds.
    pub burst: NonZeroU32,
}

/// The unit of time of a [`Rate`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RateUnit {
    /// `/s`
    Second,
    /// `/min`
    Minute,
    /// `/h`
    Hour,
}

impl RateUnit {
    /// The length of the unit.
    #[must_use]
    pub const fn duration(self) -> Duration {
        Duration::from_secs(match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 3_600,
        })
    }
}

impl Rate {
    const EXPECTED: &str = "a rate such as \"200/s\", \"30/min\" or \"1/s burst 10\"";

    /// Tokens per second.
    #[must_use]
    pub fn per_second(self) -> f64 {
        f64::from(self.count.get()) / self.per.duration().as_secs_f64()
    }

    /// Time between two tokens.
    #[must_use]
    pub fn interval(self) -> Duration {
        self.per.duration() / self.count.get()
    }

    fn parse(text: &str) -> Option<Self> {
        let (rate, burst) = match text.trim().split_once("burst") {
            Some((rate, burst)) => (rate, Some(burst.trim().parse().ok()?)),
            None => (text, None),
        };
        let (count, unit) = rate.trim().split_once('/')?;
        let count = count.trim().parse().ok()?;
        let per = match unit.trim() {
            "s" | "sec" | "second" => RateUnit::Second,
            "m" | "min" | "minute" => RateUnit::Minute,
            "h" | "hour" => RateUnit::Hour,
            _ => return None,
        };
        Some(Self { count, per, burst: burst.unwrap_or(count) })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.per {
            RateUnit::Second => "s",
            RateUnit::Minute => "min",
            RateUnit::Hour => "h",
        };
        write!(f, "{}/{unit}", self.count)?;
        if self.burst == self.count { Ok(()) } else { write!(f, " burst {}", self.burst) }
    }
}

impl FromStr for Rate {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        Self::parse(text).ok_or_else(|| ValueError { value: text.to_owned(), expected: Self::EXPECTED })
    }
}

/// Serde through `Display` and `FromStr`; a number in the file is met with the expected form.
macro_rules! serde_as_text {
    ($($value:ty),*) => {$(
        impl Serialize for $value {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $value {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;
                impl de::Visitor<'_> for Text {
                    type Value = $value;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str(<$value>::EXPECTED)
                    }
                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$value, E> {
                        text.parse().map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(Text)
            }
        }
    )*};
}
serde_as_text!(Period, Size, Rate);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rate(count: u32, per: RateUnit, burst: u32) -> Rate {
        Rate { count: NonZeroU32::new(count).unwrap(), per, burst: NonZeroU32::new(burst).unwrap() }
    }

    #[test]
    fn written_forms_are_read() {
        assert_eq!("30s".parse(), Ok(Period::from_secs(30)));
        assert_eq!("1h 30m".parse(), Ok(Period::from_secs(5_400)));
        assert_eq!("0s".parse(), Ok(Period::default()));
        assert_eq!("64MiB".parse(), Ok(Size::from_mib(64)));
        assert_eq!("1 kB".parse(), Ok(Size(1_000)));
        assert_eq!("200/s".parse(), Ok(rate(200, RateUnit::Second, 200)));
        assert_eq!("1/s burst 10".parse(), Ok(rate(1, RateUnit::Second, 10)));
        assert_eq!("30 / min".parse(), Ok(rate(30, RateUnit::Minute, 30)));
    }

    #[test]
    fn other_forms_are_refused_with_an_example() {
        let period = "30".parse::<Period>().unwrap_err().to_string();
        assert_eq!(period, r#""30" is not a period such as "250ms", "30s" or "1h 30m""#);
        let size = "64".parse::<Size>().unwrap_err().to_string();
        assert_eq!(size, r#""64" is not a size such as "256KiB", "64MiB" or "1GB""#);
        for text in ["0/s", "5", "5/fortnight", "5/s burst 0", "5/s burst", "-1/s", ""] {
            let error = text.parse::<Rate>().unwrap_err().to_string();
            assert_eq!(error, format!(r#"{text:?} is not a rate such as "200/s", "30/min" or "1/s burst 10""#));
        }
        for text in ["0", "-5s", "", "s"] {
            assert!(text.parse::<Period>().is_err(), "{text:?}");
            assert!(text.parse::<Size>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_bare_number_is_met_with_the_expected_form() {
        let error = serde_json::from_str::<Period>("30").unwrap_err().to_string();
        assert_eq!(
            error,
            r#"invalid type: integer `30`, expected a period such as "250ms", "30s" or "1h 30m" at line 1 column 2"#
        );
    }

    #[test]
    fn a_rate_knows_its_interval() {
        assert_eq!(rate(30, RateUnit::Minute, 1).interval(), Duration::from_secs(2));
        assert!((rate(30, RateUnit::Minute, 1).per_second() - 0.5).abs() < f64::EPSILON);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn every_value_reads_back_as_itself(
            nanos in any::<u64>(), bytes in any::<u64>(), count in 1_u32.., burst in 1_u32..,
            per in prop::sample::select(vec![RateUnit::Second, RateUnit::Minute, RateUnit::Hour]),
        ) {
            let period = Period(Duration::from_nanos(nanos));
            prop_assert_eq!(period.to_string().parse(), Ok(period));
            prop_assert_eq!(Size(bytes).to_string().parse(), Ok(Size(bytes)));
            let rate = rate(count, per, burst);
            prop_assert_eq!(serde_json::from_str::<Rate>(&serde_json::to_string(&rate).unwrap()).unwrap(), rate);
        }
        #[test]
        fn any_text_is_read_or_refused_without_panic(text in ".{0,24}") {
            let _ = (text.parse::<Period>(), text.parse::<Size>(), text.parse::<Rate>());
        }
    }
}
