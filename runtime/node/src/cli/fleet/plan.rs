//! Where the nodes of `village up --nodes` have their data and their ports, and how each is started.

use std::{
    ffi::OsString,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use aivillage_runtime::config::LogFormat;

use crate::{
    Cluster,
    cli::{Exit, Failure, config::Sources, serve::CLUSTER_FILE},
};

/// Most nodes on one machine: as many as a cluster has.
const MOST: usize = 64;

/// A node that is to be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Planned {
    /// What it is called, `n1`.
    pub(crate) name: String,
    /// Its data directory.
    pub(crate) dir: PathBuf,
    /// Arguments of this program.
    pub(crate) args: Vec<OsString>,
}

impl Planned {
    /// Whether it is a member of a cluster already.
    pub(crate) fn is_member(&self) -> bool {
        self.dir.join(CLUSTER_FILE).exists()
    }
}

/// The directories of nodes below a data directory, in the order of their numbers.
pub(crate) fn directories(data: &Path) -> Vec<PathBuf> {
    (1..=MOST).map(|number| data.join(format!("n{number}"))).filter(|dir| dir.is_dir()).collect()
}

/// Plans so many nodes; their ports count up from the configured ones, any free one (0) stays that.
///
/// # Errors
/// A port beyond the last one.
pub(crate) fn plan(count: u16, sources: &Sources, cluster: &Cluster) -> Result<Vec<Planned>, Failure> {
    (0..count).map(|number| node(number, sources, cluster)).collect()
}

fn node(number: u16, sources: &Sources, cluster: &Cluster) -> Result<Planned, Failure> {
    let short = format!("n{}", number + 1);
    let dir = cluster.node.data.join(&short);
    let name = if cluster.node.name.is_empty() { short.clone() } else { format!("{}-{short}", cluster.node.name) };
    let text = |value: &str| toml::Value::from(value).to_string();
    let mut sets = sources.sets().to_vec();
    sets.push(format!("node.name={}", text(&name)));
    for (key, address) in [("node.listen", &cluster.node.listen), ("node.advertise", &cluster.node.advertise)] {
        if let Some((host, port)) = address.rsplit_once(':') {
            sets.push(format!("{key}={}", text(&format!("{host}:{}", counted(key, port.parse().ok(), number)?))));
        }
    }
    for (key, address) in [("edge.listen", cluster.edge.listen), ("edge.admin_listen", cluster.edge.admin_listen)] {
        let port = counted(key, Some(address.port()), number)?;
        sets.push(format!("{key}={}", text(&SocketAddr::new(address.ip(), port).to_string())));
    }
    // Lines of JSON behind a prefix are neither for people nor for programs.
    if cluster.telemetry.log_format == LogFormat::Auto {
        sets.push("telemetry.log_format=text".to_owned());
    }
    let mut args: Vec<OsString> = ["up", "--json", "--with-parent", "--data"].map(OsString::from).to_vec();
    args.push(dir.clone().into());
    if let Some(file) = sources.file() {
        args.extend(["--config".into(), file.into()]);
    }
    args.extend(sets.into_iter().flat_map(|set| [OsString::from("--set"), set.into()]));
    Ok(Planned { name: short, dir, args })
}

fn counted(key: &str, port: Option<u16>, number: u16) -> Result<u16, Failure> {
    let counted = match port {
        Some(0) => Some(0),
        Some(port) => port.checked_add(number),
        None => None,
    };
    counted.ok_or_else(|| {
        let node = number + 1;
        Failure::new(Exit::Usage, format!("{key}: there is no port for node {node}"))
            .hint("the ports of the nodes count up from the configured ones; 0 takes any free port for each")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(count: u16, sets: &[&str]) -> Result<Vec<Planned>, Failure> {
        let sets = sets.iter().map(|set| (*set).to_owned()).collect();
        let sources = Sources::new(Some("/dev/null".into()), sets);
        plan(count, &sources, &sources.load().unwrap().value)
    }

    /// The configuration with which a planned node starts.
    fn read(node: &Planned) -> Cluster {
        let args: Vec<_> = node.args.iter().map(|arg| arg.to_str().unwrap().to_owned()).collect();
        let sets = args.windows(2).filter(|pair| pair[0] == "--set").map(|pair| pair[1].clone()).collect();
        Sources::new(Some("/dev/null".into()), sets).load().unwrap().value
    }

    #[test]
    fn ports_count_up_from_the_configured_ones() {
        let nodes = planned(3, &["edge.listen=127.0.0.1:7000", "node.data=d", "limits.mailbox=7"]).unwrap();
        let third = read(&nodes[2]);
        assert_eq!((third.edge.listen.port(), third.edge.admin_listen.port()), (7002, 9092));
        assert_eq!((&*third.node.listen, &*third.node.advertise, &*third.node.name), ("127.0.0.1:4102", "", "n3"));
        assert_eq!(third.limits.mailbox, 7);
        assert_eq!(third.telemetry.log_format, LogFormat::Text);
        assert_eq!(nodes[2].dir, Path::new("d/n3"));
        assert_eq!(nodes[2].args[..5], ["up", "--json", "--with-parent", "--data", "d/n3"]);
    }

    #[test]
    fn any_free_port_stays_any_free_port() {
        let sets = [
            "edge.listen=[::1]:0",
            "node.listen=[::1]:0",
            "node.advertise=attic:0",
            "node.name=a",
            "telemetry.log_format=json",
        ];
        let second = read(&planned(2, &sets).unwrap()[1]);
        assert_eq!(
            (second.edge.listen.port(), &*second.node.listen, &*second.node.advertise),
            (0, "[::1]:0", "attic:0")
        );
        assert_eq!((&*second.node.name, second.telemetry.log_format), ("a-n2", LogFormat::Json));
    }

    #[test]
    fn a_port_beyond_the_last_is_a_usage_error() {
        let failure = planned(3, &["node.listen=127.0.0.1:65534"]).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.message.contains("node.listen") && failure.message.contains("node 3"), "{failure}");
    }

    #[test]
    fn directories_are_in_the_order_of_their_numbers() {
        let data = tempfile::tempdir().unwrap();
        for name in ["n10", "n2", "n1", "notes", "n0"] {
            std::fs::create_dir(data.path().join(name)).unwrap();
        }
        let names: Vec<_> =
            directories(data.path()).into_iter().map(|dir| dir.file_name().unwrap().to_owned()).collect();
        assert_eq!(names, ["n1", "n2", "n10"]);
    }
}
