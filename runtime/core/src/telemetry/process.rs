//! What the operating system says about this process, read from `/proc` at each scrape. Names follow the Prometheus client
//! guidelines ("Standard and runtime collectors"). Where there is no `/proc`, the series are absent rather than zero.

use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

/// Clock ticks per second in `/proc`: `USER_HZ`, 100 on every architecture Rust's Linux targets have.
const USER_HZ: f64 = 100.0;

/// Reads `/proc/self` whenever the metrics are written.
#[derive(Debug)]
pub(crate) struct ProcessMetrics;

/// The figures of `/proc/self/stat` (man `proc_pid_stat`) that are exported.
#[derive(Debug, PartialEq)]
struct Stat {
    cpu_seconds: f64,
    threads: u64,
    /// Seconds between the boot of the machine and the start of the process.
    started: f64,
}

impl Stat {
    fn parse(line: &str) -> Option<Self> {
        // Field 2 is the command in brackets and may itself hold spaces and brackets; count from the last one.
        let (_, rest) = line.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Self {
            cpu_seconds: ticks(field(14)?.saturating_add(field(15)?)),
            threads: field(20)?,
            started: ticks(field(22)?),
        })
    }
}

#[expect(clippy::cast_precision_loss, reason = "2^53 ticks are 2.8 million years")]
fn ticks(count: u64) -> f64 {
    count as f64 / USER_HZ
}

/// The first number after `name` in a file of `name value` lines.
fn number_after(path: &str, name: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// Seconds since the boot of the machine.
fn machine_uptime() -> Option<f64> {
    fs::read_to_string("/proc/uptime").ok()?.split_ascii_whitespace().next()?.parse().ok()
}

/// Writes one series without labels, or none if the value could not be read.
fn write(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help, unit): (&str, &str, Option<&Unit>),
    value: Option<f64>,
    kind: MetricType,
) -> std::fmt::Result {
    let Some(value) = value else { return Ok(()) };
    let metric = encoder.encode_descriptor(name, help, unit, kind)?;
    match kind {
        MetricType::Counter => ConstCounter::new(value).encode(metric),
        _ => ConstGauge::new(value).encode(metric),
    }
}

#[expect(clippy::cast_precision_loss, reason = "exact below 2^53: memory, descriptors and threads stay there")]
fn as_f64(value: u64) -> f64 {
    value as f64
}

impl Collector for ProcessMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let stat = fs::read_to_string("/proc/self/stat").ok().and_then(|line| Stat::parse(&line));
        let stat = stat.as_ref();
        let rss = number_after("/proc/self/status", "VmRSS:").map(|kib| as_f64(kib) * 1024.0);
        let open = fs::read_dir("/proc/self/fd").ok().map(|fds| as_f64(fds.count() as u64));
        let max = number_after("/proc/self/limits", "Max open files").map(as_f64);
        let uptime = machine_uptime().zip(stat).map(|(uptime, stat)| (uptime - stat.started).max(0.0));
        let boot = number_after("/proc/stat", "btime").map(as_f64);
        let start = boot.zip(stat).map(|(boot, stat)| boot + stat.started);
        let (seconds, bytes) = (Some(&Unit::Seconds), Some(&Unit::Bytes));
        let gauge = MetricType::Gauge;
        let cpu = ("process_cpu", "CPU time spent in user and kernel mode.", seconds);
        write(&mut encoder, cpu, stat.map(|stat| stat.cpu_seconds), MetricType::Counter)?;
        write(&mut encoder, ("process_resident_memory", "Memory held in RAM.", bytes), rss, gauge)?;
        write(&mut encoder, ("process_open_fds", "Open file descriptors.", None), open, gauge)?;
        write(&mut encoder, ("process_max_fds", "Limit of open file descriptors.", None), max, gauge)?;
        let threads = stat.map(|stat| as_f64(stat.threads));
        write(&mut encoder, ("process_threads", "Threads of the operating system.", None), threads, gauge)?;
        write(&mut encoder, ("process_start_time", "Start of the process, Unix time.", seconds), start, gauge)?;
        write(&mut encoder, ("process_uptime", "Time since the start of the process.", seconds), uptime, gauge)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_with_brackets_and_spaces_does_not_shift_the_fields() {
        let line = "12 (a) b (c)) S 1 12 12 0 -1 4194560 5 0 0 0 250 150 0 0 20 0 9 0 6000 1 2 3";
        assert_eq!(Stat::parse(line), Some(Stat { cpu_seconds: 4.0, threads: 9, started: 60.0 }));
        assert_eq!(Stat::parse("12 (a) S 1 2"), None);
        assert_eq!(Stat::parse(""), None);
    }
}
