//! What `village up` and `village join` let one set on the command line, as configuration.

use std::{net::SocketAddr, path::PathBuf};

use aivillage_runtime::JoinUrl;
use clap::Args;

use super::{Exit, Failure, Global, config::Sources};

/// Options of a node.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct NodeOptions {
    /// Configuration file [default: ./cluster.toml if it exists].
    #[arg(long, value_name = "FILE", env = "VILLAGE_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Address to serve on; port 0 takes a free one [default: 127.0.0.1:8080].
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<SocketAddr>,
    /// Address for other nodes; port 0 takes a free one [default: 127.0.0.1:4100].
    #[arg(long, value_name = "ADDR")]
    pub(crate) cluster_listen: Option<String>,
    /// Address at which other nodes reach this one [default: that of --cluster-listen].
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) advertise: Option<String>,
    /// A fact about this machine that actors may require, such as `gpu=true`; may be given several times.
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = label)]
    pub(crate) labels: Vec<(String, String)>,
    /// Set one key of the configuration.
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    pub(crate) sets: Vec<String>,
    /// Print one line when ready and nothing else.
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

fn label(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("is not of the form NAME=VALUE")?;
    if name.is_empty() || name.contains('.') {
        return Err("a label's name has at least one character and no dot (cluster.toml takes any)".to_owned());
    }
    Ok((name.to_owned(), value.to_owned()))
}

impl NodeOptions {
    /// Where the configuration comes from, these options and the right to join included.
    pub(crate) fn sources(&self, global: &Global, join: Option<&JoinUrl>) -> Sources {
        let text = |value: &str| toml::Value::from(value);
        let mut sets = self.sets.clone();
        if let Some(data) = &global.data {
            sets.push(format!("node.data={}", text(&data.to_string_lossy())));
        }
        if let Some(listen) = self.listen {
            sets.push(format!("edge.listen={listen}"));
            // Who takes any port for the API wants no fixed one beside it.
            if listen.port() == 0 && !self.sets.iter().any(|set| set.starts_with("edge.admin_listen")) {
                sets.push(format!("edge.admin_listen={listen}"));
            }
        }
        for (key, value) in [("node.listen", &self.cluster_listen), ("node.advertise", &self.advertise)] {
            sets.extend(value.as_ref().map(|value| format!("{key}={}", text(value))));
        }
        sets.extend(self.labels.iter().map(|(name, value)| format!("node.labels.{name}={}", text(value))));
        if let Some(join) = join {
            sets.push(format!("join.seeds=[{}]", text(&join.addr)));
            sets.push(format!("join.token={}", text(&join.token.to_string())));
        }
        Sources::new(self.config.clone(), sets)
    }
}

/// Reads `TOKEN@HOST:PORT`.
pub(crate) fn join_url(text: &str) -> Result<JoinUrl, Failure> {
    // Not by the parser of arguments: it repeats what it refuses, and most of a token is most of a secret.
    text.parse().map_err(|error| {
        Failure::new(Exit::Usage, format!("the join address cannot be read: {error}"))
            .hint("`village token new`, on a node of the village to join, prints the whole line")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn global() -> Global {
        Global { data: Some("d".into()), url: None, key_file: None, json: false }
    }

    fn token() -> String {
        let key = aivillage_runtime::PublicKey([7; 32]);
        format!("{}@[::1]:4100", aivillage_runtime::JoinToken::generate(1, key).unwrap())
    }

    #[test]
    fn options_are_configuration_and_win_over_set() {
        let options = NodeOptions {
            config: Some("/dev/null".into()),
            listen: Some("127.0.0.1:0".parse().unwrap()),
            cluster_listen: Some("0.0.0.0:4200".into()),
            advertise: Some("attic:4200".into()),
            labels: vec![("gpu".into(), "true".into()), ("zone".into(), "a=b".into())],
            sets: vec!["node.listen=127.0.0.1:1".into(), "node.labels.zone=x".into(), "node.labels.disk=ssd".into()],
            quiet: false,
        };
        let join = join_url(&token()).unwrap();
        let read = options.sources(&global(), Some(&join)).load().unwrap().value;
        assert_eq!((&*read.node.listen, &*read.node.advertise), ("0.0.0.0:4200", "attic:4200"));
        let labels: Vec<_> = read.node.labels.iter().map(|(name, value)| (&**name, &**value)).collect();
        assert_eq!(labels, [("disk", "ssd"), ("gpu", "true"), ("zone", "a=b")]);
        assert_eq!((read.edge.listen.port(), read.edge.admin_listen.port()), (0, 0));
        assert_eq!((read.join.seeds, read.join.token), (vec![join.addr], join.token.to_string()));
        assert_eq!(read.node.data, PathBuf::from("d"));
    }

    #[test]
    fn labels_have_a_name_without_dots() {
        assert_eq!(label("a=b=c"), Ok(("a".into(), "b=c".into())));
        for wrong in ["a", "=b", "a.b=c"] {
            assert!(label(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_wrong_join_address_is_a_usage_error_that_keeps_the_secret() {
        let good = token();
        for wrong in ["", "x@h:1", good.trim_end_matches(":4100"), &good[..60]] {
            let failure = join_url(wrong).unwrap_err();
            assert_eq!(failure.exit, Exit::Usage, "{wrong}");
            assert!(!failure.message.contains(&good[20..60]) && failure.hint.is_some(), "{failure:?}");
        }
    }
}
