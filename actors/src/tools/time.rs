//! `time.now`: date and time in a zone of the IANA database.

use aivillage_runtime::clock;
use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Class, Observation, Slot, Tool, ToolCx, ToolError};
use crate::planner::slots::SlotKind;

/// Tells date and time.
#[derive(Debug)]
pub struct Now;

/// Arguments of [`Now`].
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NowArgs {
    /// Zone such as `Europe/Paris`, or a city such as `Tokyo`; UTC when absent.
    #[serde(default)]
    pub zone: Option<String>,
}

/// Result of [`Now`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NowOut {
    /// RFC 3339 with the zone's offset.
    pub time: String,
    /// IANA name of the zone.
    pub zone: String,
    /// Day of the week.
    pub weekday: String,
    /// In words.
    pub text: String,
}

impl Tool for Now {
    const NAME: &'static str = "time.now";
    const ACTION: &'static str = "tool.compute";
    const CLASS: Class = Class::Read;
    const ABOUT: &'static str = "Tells the current date, weekday and time, in UTC or in a named time zone or city.";
    const SLOTS: &'static [Slot] =
        &[Slot { arg: "zone", kind: SlotKind::Zone, required: false, ask: "for which city or time zone?" }];
    type Args = NowArgs;
    type Out = NowOut;

    async fn call(_: ToolCx, args: NowArgs) -> Result<NowOut, ToolError> {
        tell(clock::now().into(), args.zone.as_deref())
    }

    fn observe(out: NowOut) -> Observation {
        Observation { text: out.text, ..Observation::default() }
    }
}

fn tell(now: DateTime<Utc>, zone: Option<&str>) -> Result<NowOut, ToolError> {
    let zone = match zone {
        None => Tz::UTC,
        Some(name) => {
            find_zone(name).ok_or_else(|| ToolError::NotFound(format!("time zone `{name}`; try Area/City")))?
        }
    };
    let local = now.with_timezone(&zone);
    let (weekday, clock) = (local.format("%A").to_string(), local.format("%H:%M").to_string());
    let text = format!("{weekday}, {}, {clock} ({})", local.format("%-d %B %Y"), zone.name());
    Ok(NowOut { time: local.to_rfc3339(), zone: zone.name().to_owned(), weekday, text })
}

/// A zone by its IANA name, in any case, or by the city that names it.
#[must_use]
pub fn find_zone(name: &str) -> Option<Tz> {
    let wanted = name.trim().replace(' ', "_");
    if wanted.len() < 2 {
        return None;
    }
    let whole = chrono_tz::TZ_VARIANTS.iter().find(|zone| zone.name().eq_ignore_ascii_case(&wanted));
    let city = |zone: &&Tz| {
        zone.name().contains('/')
            && zone.name().rsplit('/').next().is_some_and(|city| city.eq_ignore_ascii_case(&wanted))
    };
    whole.or_else(|| chrono_tz::TZ_VARIANTS.iter().find(city)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment() -> DateTime<Utc> {
        "2026-01-15T12:30:00Z".parse().unwrap()
    }

    #[test]
    fn zones_are_found_by_name_and_city() {
        assert_eq!(tell(moment(), None).unwrap().text, "Thursday, 15 January 2026, 12:30 (UTC)");
        assert_eq!(tell(moment(), Some("Tokyo")).unwrap().time, "2026-01-15T21:30:00+09:00");
        assert_eq!(tell(moment(), Some("new york")).unwrap().zone, "America/New_York");
        assert_eq!(tell(moment(), Some("europe/paris")).unwrap().zone, "Europe/Paris");
    }

    #[test]
    fn an_unknown_zone_is_named() {
        assert_eq!(
            tell(moment(), Some("Atlantis")),
            Err(ToolError::NotFound("time zone `Atlantis`; try Area/City".into()))
        );
    }
}
