//! `village bench local`: CPU per tell and per ask, ours beside raw `ractor`, in one process and one run.
//!
//! Both sides do the same work: one actor that adds numbers. A *tell* round sends batches of 1000 messages and one ask, so that
//! the mailbox never grows beyond a batch; an *ask* round asks one at a time. CPU is user and system time of the whole process.
//! Rounds of the two sides alternate, so that a change of the machine's speed meets both; the ratio is the median of the
//! ratios of neighbouring rounds. All of it runs in worker tasks: an ask from the thread of `block_on` would cost a wake-up.

use std::time::{Duration, Instant};

use aivillage_runtime::{Actor, ActorCx, ActorProcessingErr, ActorRef, Addr, Kind, KindOptions, Mail, Reply, Village};
use clap::Args;
use ractor::RpcReplyPort;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::cli::{
    Exit, Failure, Outcome,
    output::{self, DIM, GOOD, WARN, paint},
};

/// Tells before each ask that empties the mailbox.
const BATCH: u32 = 1000;
/// Highest CPU per tell and per ask over raw `ractor` that the kit may cost.
const ACCEPT: [f64; 2] = [1.05, 1.10];

/// Arguments of `village bench local`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  village bench local")]
pub(crate) struct Local {
    /// Pairs of rounds; the medians are shown.
    #[arg(long, default_value_t = 31, value_parser = clap::value_parser!(u32).range(1..1000))]
    rounds: u32,
    /// Messages in a tell round, in thousands; an ask round has a twentieth.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..100_000))]
    thousands: u32,
    /// Exit with 1 when a ratio is above what the design accepts.
    #[arg(long)]
    check: bool,
}

impl Local {
    /// Measures and prints.
    ///
    /// # Errors
    /// When an actor does not start or answer; with `--check`, a ratio above the accepted one.
    pub(crate) async fn run(self, as_json: bool) -> Outcome {
        let failed = |error: &dyn std::fmt::Display| Failure::new(Exit::Failed, format!("the bench stopped: {error}"));
        let village = Village::builder().host(|_: &ActorCx| Adder).start().await.map_err(|error| failed(&error))?;
        let (raw, raw_ended) = Actor::spawn(None, RawAdder, ()).await.map_err(|error| failed(&error))?;
        let sides = Sides { ours: village.addr::<Adder>("bench"), raw: raw.clone() };
        let (rounds, tells) = (self.rounds, self.thousands * 1000);
        let measured = village.task("bench.local", async move { sides.measure(rounds, tells).await });
        let report = measured.await.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
        raw.stop(None);
        raw_ended.await.map_err(|error| failed(&error))?;
        village.shutdown().await.map_err(|error| failed(&error))?;
        report.print(as_json);
        if self.check { report.judge() } else { Ok(()) }
    }
}

/// What both adders understand. The raw one has the same variants with ractor's own port.
#[derive(Debug, Serialize, Deserialize)]
enum AdderMsg {
    Add(u64),
    Total(Reply<u64>),
}

#[derive(Debug)]
struct Adder;

impl Kind for Adder {
    const NAME: &'static str = "bench.adder";
    type Body = AdderMsg;

    fn options() -> KindOptions {
        // A batch and its ask must fit; everything else is as users get it.
        KindOptions::default().mailbox(2 * BATCH)
    }
}

impl Actor for Adder {
    type Msg = Mail<AdderMsg>;
    type State = u64;
    type Arguments = ActorCx;

    async fn pre_start(&self, _: ActorRef<Self::Msg>, _: ActorCx) -> Result<u64, ActorProcessingErr> {
        Ok(0)
    }

    async fn handle(&self, _: ActorRef<Self::Msg>, mail: Self::Msg, total: &mut u64) -> Result<(), ActorProcessingErr> {
        match mail.body {
            AdderMsg::Add(n) => *total = total.wrapping_add(n),
            AdderMsg::Total(reply) => reply.send(*total),
        }
        Ok(())
    }
}

#[derive(Debug)]
enum RawMsg {
    Add(u64),
    Total(RpcReplyPort<u64>),
}

impl ractor::Message for RawMsg {}

#[derive(Debug)]
struct RawAdder;

impl Actor for RawAdder {
    type Msg = RawMsg;
    type State = u64;
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<RawMsg>, (): ()) -> Result<u64, ActorProcessingErr> {
        Ok(0)
    }

    async fn handle(&self, _: ActorRef<RawMsg>, message: RawMsg, total: &mut u64) -> Result<(), ActorProcessingErr> {
        match message {
            RawMsg::Add(n) => *total = total.wrapping_add(n),
            RawMsg::Total(reply) => reply.send(*total)?,
        }
        Ok(())
    }
}

type BenchError = Box<dyn std::error::Error + Send + Sync>;

/// The two actors that are compared.
struct Sides {
    ours: Addr<Adder>,
    raw: ActorRef<RawMsg>,
}

impl Sides {
    async fn measure(&self, rounds: u32, tells: u32) -> Result<Report, BenchError> {
        let (batches, asks) = (tells.div_ceil(BATCH), (tells / 20).max(1));
        // The first message starts the actor. One unmeasured pair warms caches, the allocator and the branch predictor.
        self.ours_asks(1).await?;
        self.ours_tells(batches).await?;
        self.raw_tells(batches).await?;
        let mut report = Report::default();
        for _ in 0..rounds {
            report.tell_raw.push(Cost::of(self.raw_tells(batches), batches * (BATCH + 1)).await?);
            report.tell_ours.push(Cost::of(self.ours_tells(batches), batches * (BATCH + 1)).await?);
            report.ask_raw.push(Cost::of(self.raw_asks(asks), asks).await?);
            report.ask_ours.push(Cost::of(self.ours_asks(asks), asks).await?);
        }
        Ok(report)
    }

    async fn ours_tells(&self, batches: u32) -> Result<(), BenchError> {
        for _ in 0..batches {
            for n in 0..BATCH {
                self.ours.tell(AdderMsg::Add(u64::from(n))).await?;
            }
            self.ours.ask(AdderMsg::Total).await?;
        }
        Ok(())
    }

    async fn raw_tells(&self, batches: u32) -> Result<(), BenchError> {
        for _ in 0..batches {
            for n in 0..BATCH {
                self.raw.cast(RawMsg::Add(u64::from(n)))?;
            }
            self.raw_ask().await?;
        }
        Ok(())
    }

    async fn ours_asks(&self, asks: u32) -> Result<(), BenchError> {
        for _ in 0..asks {
            self.ours.ask(AdderMsg::Total).await?;
        }
        Ok(())
    }

    async fn raw_asks(&self, asks: u32) -> Result<(), BenchError> {
        for _ in 0..asks {
            self.raw_ask().await?;
        }
        Ok(())
    }

    /// With a time limit, as every ask of the kit has one.
    async fn raw_ask(&self) -> Result<u64, BenchError> {
        match self.raw.call(RawMsg::Total, Some(Duration::from_secs(10))).await? {
            ractor::rpc::CallResult::Success(total) => Ok(total),
            other => Err(format!("raw ractor did not answer: {other:?}").into()),
        }
    }
}

/// CPU and wall time of one message, in nanoseconds.
#[derive(Debug, Clone, Copy)]
struct Cost {
    cpu_ns: f64,
    wall_ns: f64,
}

impl Cost {
    async fn of(work: impl Future<Output = Result<(), BenchError>>, messages: u32) -> Result<Self, BenchError> {
        let (cpu, wall) = (process_cpu(), Instant::now());
        work.await?;
        let (cpu, wall) = (process_cpu().saturating_sub(cpu), wall.elapsed());
        let each = |time: Duration| time.as_secs_f64() * 1e9 / f64::from(messages);
        Ok(Self { cpu_ns: each(cpu), wall_ns: each(wall) })
    }
}

/// User and system time of all threads of this process.
fn process_cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

#[derive(Debug, Default)]
struct Report {
    tell_ours: Vec<Cost>,
    tell_raw: Vec<Cost>,
    ask_ours: Vec<Cost>,
    ask_raw: Vec<Cost>,
}

/// One line of the table.
struct Line {
    what: &'static str,
    ours: Cost,
    raw: Cost,
    ratio: f64,
    accept: f64,
}

impl Report {
    fn lines(&self) -> [Line; 2] {
        let line = |what, ours: &[Cost], raw: &[Cost], accept| Line {
            what,
            ours: median_cost(ours),
            raw: median_cost(raw),
            ratio: median(ours.iter().zip(raw).map(|(ours, raw)| ours.cpu_ns / raw.cpu_ns)),
            accept,
        };
        let [tell, ask] = ACCEPT;
        [line("tell", &self.tell_ours, &self.tell_raw, tell), line("ask", &self.ask_ours, &self.ask_raw, ask)]
    }

    fn print(&self, as_json: bool) {
        if as_json {
            output::json(&self.as_json());
            return;
        }
        let rows = self.lines().map(|line| {
            let ratio = format!("{:.3}", line.ratio);
            vec![
                line.what.to_owned(),
                format!("{:.0}", line.ours.cpu_ns),
                format!("{:.0}", line.raw.cpu_ns),
                ratio,
                format!("{:.2}", line.accept),
                format!("{:.2}", 1e3 / line.ours.wall_ns),
                format!("{:.2}", 1e3 / line.raw.wall_ns),
            ]
        });
        let headings = ["message", "#cpu ns", "#raw ractor", "#ratio", "#accept", "#M/s", "#raw M/s"];
        output::say(output::table(&headings, rows));
        let profile =
            if cfg!(debug_assertions) { paint(WARN, "unoptimised build: figures mean nothing") } else { String::new() };
        output::say(format_args!(
            "{} {profile}",
            paint(
                DIM,
                format_args!(
                    "medians of {} interleaved rounds; CPU of the whole process per message",
                    self.tell_ours.len()
                )
            )
        ));
    }

    fn as_json(&self) -> Value {
        let lines = self.lines().map(|line| {
            let cost = |cost: Cost| json!({ "cpu_ns": cost.cpu_ns, "wall_ns": cost.wall_ns });
            json!({ "message": line.what, "ours": cost(line.ours), "raw_ractor": cost(line.raw), "cpu_ratio": line.ratio, "accept": line.accept })
        });
        json!({ "rounds": self.tell_ours.len(), "optimised": !cfg!(debug_assertions), "results": lines })
    }

    fn judge(&self) -> Outcome {
        let above = self.lines().into_iter().find(|line| line.ratio > line.accept);
        if let Some(line) = above {
            Err(Failure::new(
                Exit::Failed,
                format!("CPU per {} is {:.3} of raw ractor, above {:.2}", line.what, line.ratio, line.accept),
            ))
        } else {
            output::note(paint(GOOD, "both ratios are within what the design accepts"));
            Ok(())
        }
    }
}

fn median_cost(costs: &[Cost]) -> Cost {
    Cost {
        cpu_ns: median(costs.iter().map(|cost| cost.cpu_ns)),
        wall_ns: median(costs.iter().map(|cost| cost.wall_ns)),
    }
}

/// The middle value; of an even number the upper of the two.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_short_run_measures_all_four_columns() {
        let village = Village::builder().host(|_: &ActorCx| Adder).start().await.unwrap();
        let (raw, _) = Actor::spawn(None, RawAdder, ()).await.unwrap();
        let sides = Sides { ours: village.addr::<Adder>("bench"), raw: raw.clone() };
        let report = village.task("bench", async move { sides.measure(3, 2000).await }).await.unwrap().unwrap();
        for line in report.lines() {
            assert!(line.ours.cpu_ns > 0.0 && line.raw.cpu_ns > 0.0 && line.ratio.is_finite(), "{}", line.what);
        }
        raw.stop(None);
        village.shutdown().await.unwrap();
    }

    #[test]
    fn a_ratio_above_the_accepted_one_fails_the_check() {
        let cost = |cpu_ns| vec![Cost { cpu_ns, wall_ns: 1.0 }];
        let report =
            |ask| Report { tell_ours: cost(1.0), tell_raw: cost(1.0), ask_ours: cost(ask), ask_raw: cost(1.0) };
        assert!(report(1.09).judge().is_ok());
        assert_eq!(report(1.2).judge().unwrap_err().exit, Exit::Failed);
    }

    #[test]
    fn median_is_the_middle_of_unsorted_values() {
        assert!((median([3.0, 1.0, 2.0].into_iter()) - 2.0).abs() < f64::EPSILON);
    }
}
