//! Reading a configuration: file, then `VILLAGE__SECTION__KEY`, then `--set section.key=value`.
//!
//! The file is read into the structs first, because only then an error knows its line. Then each override is laid over the
//! file's table and the whole is read again, so that an error names the override that caused it.

use std::path::Path;

use serde::de::DeserializeOwned;
use toml::{Table, Value};

use super::error::{ConfigError, with_suggestion};

/// Variables of the environment that begin with this are configuration; a wrong one is an error.
pub const ENV_PREFIX: &str = "VILLAGE__";

/// A configuration that was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded<T> {
    /// The values, defaults filled in.
    pub value: T,
    /// What was written in file, environment and flags: the sections of all crates, without defaults.
    pub table: Table,
}

/// Reads `file` (absent: an empty one), the `VILLAGE__…` variables in `env` and the `section.key=value` pairs in `sets`.
///
/// The text of an override is read as a TOML value; where that is no such value, or not of the key's type, it is a string.
///
/// # Errors
/// [`ConfigError`] says which file, line and column, which variable or which `--set` is wrong and what was expected.
pub fn load<T: DeserializeOwned>(
    file: Option<&Path>,
    env: impl Iterator<Item = (String, String)>,
    sets: &[String],
) -> Result<Loaded<T>, ConfigError> {
    let mut table = file.map_or_else(|| Ok(Table::new()), read_file::<T>)?;
    for change in overrides(env, sets)? {
        table = change.apply::<T>(&table)?;
    }
    let value = T::deserialize(table.clone()).map_err(|error| ConfigError::invalid("configuration", text(&error)))?;
    Ok(Loaded { value, table })
}

/// Reads one section of a whole configuration by its dotted name; an absent section has its defaults.
///
/// # Errors
/// [`ConfigError::Invalid`] if the section holds a key or a value that `T` refuses.
pub fn section<T: DeserializeOwned>(table: &Table, name: &str) -> Result<T, ConfigError> {
    let mut part = Some(table);
    for key in name.split('.') {
        part = match part.and_then(|part| part.get(key)) {
            None => None,
            Some(Value::Table(inner)) => Some(inner),
            Some(_) => return Err(ConfigError::invalid(name, format!("`{key}` is a value, not a section"))),
        };
    }
    T::deserialize(part.cloned().unwrap_or_default()).map_err(|error| ConfigError::invalid(name, text(&error)))
}

fn read_file<T: DeserializeOwned>(path: &Path) -> Result<Table, ConfigError> {
    let read = std::fs::read_to_string(path);
    let text = read.map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    let in_file = |error| ConfigError::in_file(path, &text, &error);
    toml::from_str::<T>(&text).map_err(in_file)?;
    toml::from_str::<Table>(&text).map_err(in_file)
}

/// The message of an error in a table without text, where the reader has no place to show.
fn text(error: &toml::de::Error) -> String {
    with_suggestion(&error.to_string().trim_end().replace('\n', " "))
}

/// One value to be laid over the file.
struct Override {
    /// How an error names it.
    origin: String,
    path: Vec<String>,
    raw: String,
}

/// Variables in the order of their names, so that a run can be repeated, then the flags in the order given.
fn overrides(env: impl Iterator<Item = (String, String)>, sets: &[String]) -> Result<Vec<Override>, ConfigError> {
    let mut variables: Vec<_> = env.filter(|(name, _)| name.starts_with(ENV_PREFIX)).collect();
    variables.sort();
    let mut all = Vec::with_capacity(variables.len() + sets.len());
    for (name, raw) in variables {
        let path = name[ENV_PREFIX.len()..].split("__").map(str::to_lowercase).collect();
        all.push(Override { origin: name, path, raw });
    }
    for set in sets {
        let origin = format!("--set {set}");
        let Some((path, raw)) = set.split_once('=') else {
            return Err(ConfigError::Override { origin, message: "is not of the form section.key=value".into() });
        };
        let path = path.split('.').map(|key| key.trim().to_owned()).collect();
        all.push(Override { origin, path, raw: raw.trim().to_owned() });
    }
    Ok(all)
}

impl Override {
    /// Lays the value over `table`, in the first reading of it that `T` takes.
    fn apply<T: DeserializeOwned>(&self, table: &Table) -> Result<Table, ConfigError> {
        if self.path.iter().any(String::is_empty) {
            return Err(self.error("has an empty key: expected a section and a key".into()));
        }
        let typed = format!("value = {}", self.raw).parse::<Table>().ok();
        let typed = typed.filter(|table| table.len() == 1).and_then(|mut table| table.remove("value"));
        let mut first_error = None;
        for value in typed.into_iter().chain([Value::String(self.raw.clone())]) {
            let mut changed = table.clone();
            insert(&mut changed, &self.path, value).map_err(|message| self.error(message))?;
            match T::deserialize(changed.clone()) {
                Ok(_) => return Ok(changed),
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        Err(self.error(first_error.as_ref().map(text).unwrap_or_default()))
    }

    fn error(&self, message: String) -> ConfigError {
        ConfigError::Override { origin: self.origin.clone(), message }
    }
}

fn insert(table: &mut Table, path: &[String], value: Value) -> Result<(), String> {
    match path {
        [] => Ok(()),
        [key] => {
            table.insert(key.clone(), value);
            Ok(())
        }
        [section, rest @ ..] => match table.entry(section.clone()).or_insert_with(|| Value::Table(Table::new())) {
            Value::Table(inner) => insert(inner, rest, value),
            _ => Err(format!("`{section}` is a value, not a section")),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::super::RuntimeConfig;
    use super::*;

    fn file(text: &str) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cluster.toml");
        std::fs::write(&path, text).unwrap();
        (dir, path)
    }

    fn loaded(text: &str, env: &[(&str, &str)], sets: &[&str]) -> Result<Loaded<RuntimeConfig>, String> {
        let (dir, path) = file(text);
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
        let prefix = format!("{}/", dir.path().display());
        load(Some(&path), env, &sets).map_err(|error| error.to_string().replace(&prefix, ""))
    }

    #[test]
    fn flags_win_over_environment_over_file_over_default() {
        let text = "[limits]\nmailbox = 1\nmax_actors = 1\ncall_timeout = '1s'\n";
        let env = [("VILLAGE__LIMITS__MAILBOX", "2"), ("VILLAGE__LIMITS__MAX_ACTORS", "2"), ("VILLAGE_LOG", "x")];
        let limits = loaded(text, &env, &["limits.mailbox=3"]).unwrap().value.limits;
        assert_eq!((limits.mailbox, limits.max_actors), (3, 2));
        assert_eq!(limits.call_timeout.to_string(), "1s");
        assert_eq!(limits.blob_rate.to_string(), "0B");
    }

    #[test]
    fn without_a_file_the_defaults_hold() {
        let loaded = load::<RuntimeConfig>(None, std::iter::empty(), &[]).unwrap();
        assert_eq!(loaded.value, RuntimeConfig::default());
        assert_eq!(loaded.table, Table::new());
    }

    #[test]
    fn an_unknown_key_in_the_file_is_shown_with_its_place_and_the_nearest_name() {
        let error = loaded("[limits]\nmax_actors = 7\n  mailbx = 10 # typo\n", &[], &[]).unwrap_err();
        let expected = "\
cluster.toml:3:3: unknown field `mailbx`, expected one of `mailbox`, `call_timeout`, `max_actors`, `blob_rate`; did you mean `mailbox`?
  |
3 |   mailbx = 10 # typo
  |   ^^^^^^";
        assert_eq!(error, expected);
    }

    #[test]
    fn an_unknown_section_is_shown_with_the_nearest_name() {
        let error = loaded("[limit]\nmailbox = 10\n", &[], &[]).unwrap_err();
        let expected = "\
cluster.toml:1:2: unknown field `limit`, expected one of `node`, `join`, `control`, `limits`, `supervise`, `telemetry`, `drain`; did you mean `limits`?
  |
1 | [limit]
  |  ^^^^^";
        assert_eq!(error, expected);
    }

    #[test]
    fn a_wrong_value_in_the_file_is_shown_with_its_place() {
        let error = loaded("[limits]\n\ncall_timeout = 10\n", &[], &[]).unwrap_err();
        let expected = r#"cluster.toml:3:16: invalid type: integer `10`, expected a period such as "250ms", "30s" or "1h 30m"
  |
3 | call_timeout = 10
  |                ^^"#;
        assert_eq!(error, expected);
    }

    #[test]
    fn a_wrong_word_is_shown_with_the_nearest_one() {
        let error = loaded("telemetry.log_format = 'jsn'", &[], &[]).unwrap_err();
        let expected = "\
cluster.toml:1:24: unknown variant `jsn`, expected one of `auto`, `text`, `json`; did you mean `json`?
  |
1 | telemetry.log_format = 'jsn'
  |                        ^^^^^";
        assert_eq!(error, expected);
    }

    #[test]
    fn broken_toml_is_shown_with_its_place() {
        let error = loaded("[limits]\nmailbox = \n", &[], &[]).unwrap_err();
        assert!(error.starts_with("cluster.toml:2:11: "), "{error}");
        assert!(error.ends_with("\n  |\n2 | mailbox = \n  |           ^"), "{error}");
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = load::<RuntimeConfig>(Some(Path::new("/nowhere/c.toml")), std::iter::empty(), &[]).unwrap_err();
        assert_eq!(error.to_string(), "/nowhere/c.toml: No such file or directory (os error 2)");
    }

    #[test]
    fn a_wrong_override_is_named() {
        for (env, sets, expected) in [
            (
                vec![("VILLAGE__LIMITS__MAILBX", "5")],
                vec![],
                "VILLAGE__LIMITS__MAILBX: unknown field `mailbx`, expected one of `mailbox`, `call_timeout`, \
                 `max_actors`, `blob_rate` in `limits`; did you mean `mailbox`?",
            ),
            (
                vec![("VILLAGE__LIMIT__MAILBOX", "5")],
                vec![],
                "VILLAGE__LIMIT__MAILBOX: unknown field `limit`, expected one of `node`, `join`, `control`, `limits`, `supervise`, \
                 `telemetry`, `drain`; did you mean `limits`?",
            ),
            (
                vec![("VILLAGE__LIMITS__MAILBOX", "many")],
                vec![],
                "VILLAGE__LIMITS__MAILBOX: invalid type: string \"many\", expected u32 in `limits.mailbox`",
            ),
            (
                vec![("VILLAGE__LIMITS__", "5")],
                vec![],
                "VILLAGE__LIMITS__: has an empty key: expected a section and a key",
            ),
            (
                vec![],
                vec!["limits.mailbox=-5"],
                "--set limits.mailbox=-5: invalid value: integer `-5`, expected u32 in `limits.mailbox`",
            ),
            (vec![], vec!["limits.mailbox"], "--set limits.mailbox: is not of the form section.key=value"),
            (vec![], vec!["limits.mailbox.x=1"], "--set limits.mailbox.x=1: `mailbox` is a value, not a section"),
        ] {
            let error = loaded("limits.mailbox = 9", &env, &sets).unwrap_err();
            assert_eq!(error, expected);
        }
    }

    #[test]
    fn text_that_looks_like_a_number_is_a_string_where_a_string_is_wanted() {
        let loaded = loaded("", &[("VILLAGE__NODE__NAME", "007")], &["telemetry.log=true"]).unwrap();
        assert_eq!((loaded.value.node.name.as_str(), loaded.value.telemetry.log.as_str()), ("007", "true"));
        assert_eq!(loaded.table["node"]["name"].as_str(), Some("007"));
    }

    #[test]
    fn an_override_cannot_smuggle_in_a_second_key() {
        let loaded = loaded("", &[], &["node.name=1\nlimits.mailbox = 7"]).unwrap();
        assert_eq!(loaded.value.limits.mailbox, 1024);
        assert_eq!(loaded.value.node.name, "1\nlimits.mailbox = 7");
    }

    #[test]
    fn a_section_is_read_by_its_dotted_name() {
        let table: Table = "[edge.quota]\nburst = 5\n[node]\nname = 'n'".parse().unwrap();
        assert_eq!(section::<BTreeMap<String, u32>>(&table, "edge.quota").unwrap()["burst"], 5);
        assert!(section::<BTreeMap<String, u32>>(&table, "edge.other.deep").unwrap().is_empty());
        let error = section::<BTreeMap<String, u32>>(&table, "node.name").unwrap_err().to_string();
        assert_eq!(error, "node.name: `name` is a value, not a section");
        let error = section::<super::super::LimitsConfig>(&table, "edge.quota").unwrap_err().to_string();
        assert!(error.starts_with("edge.quota: unknown field `burst`"), "{error}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// The last writer of a key wins, whatever was written before and wherever.
        #[test]
        fn last_writer_wins(file in prop::option::of(1_u32..1000), env in prop::option::of(1_u32..1000), sets in prop::collection::vec(1_u32..1000, 0..3)) {
            let text = file.map(|value| format!("[limits]\nmailbox = {value}")).unwrap_or_default();
            let value = env.unwrap_or_default().to_string();
            let env_vars: Vec<_> = env.iter().map(|_| ("VILLAGE__LIMITS__MAILBOX", value.as_str())).collect();
            let flags: Vec<String> = sets.iter().map(|value| format!("limits.mailbox={value}")).collect();
            let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
            let expected = sets.last().copied().or(env).or(file).unwrap_or(1024);
            prop_assert_eq!(loaded(&text, &env_vars, &flags).unwrap().value.limits.mailbox, expected);
        }
        #[test]
        fn any_file_is_read_or_refused_without_panic(text in "(\\[[a-z]{1,6}\\]|[a-zé ]{1,8} ?= ?[\"'0-9é]{0,6}|\\PC{0,12}|\n){0,12}") {
            let _ = loaded(&text, &[], &[]);
        }
    }
}
