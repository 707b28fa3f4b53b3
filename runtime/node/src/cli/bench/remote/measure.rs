//! The same work for every side that is a Rust program.

use std::sync::Arc;
use std::time::Instant;

use super::{BODY, Figures, IN_FLIGHT};

/// An actor in another process.
pub(super) trait Far: Send + Sync + 'static {
    /// Sends a body and waits for it to come back.
    fn ask(&self, body: String) -> impl Future<Output = anyhow::Result<()>> + Send;
    /// Sends a body.
    fn tell(&self, body: String) -> impl Future<Output = anyhow::Result<()>> + Send;
}

/// Asks one at a time, asks many at once, tells; from tasks of the runtime.
pub(super) async fn measure(far: impl Far, share: u32) -> anyhow::Result<Figures> {
    let far = Arc::new(far);
    let count = |usual: usize| (usual * share as usize / 100).max(10);
    let body = || "7".repeat(BODY);
    for _ in 0..count(2_000) {
        far.ask(body()).await?;
    }
    let mut times = hdrhistogram::Histogram::<u64>::new(3)?;
    for _ in 0..count(10_000) {
        let begun = Instant::now();
        far.ask(body()).await?;
        times.record(u64::try_from(begun.elapsed().as_nanos())?)?;
    }
    let (each, begun) = (count(800), Instant::now());
    let asking = (0..IN_FLIGHT).map(|_| {
        let far = far.clone();
        async move {
            for _ in 0..each {
                far.ask(body()).await?;
            }
            anyhow::Ok(())
        }
    });
    futures::future::try_join_all(asking).await?;
    let asks_per_s = per_second(IN_FLIGHT * each, begun);
    let (tells, begun) = (count(400_000), Instant::now());
    for _ in 0..tells {
        far.tell(body()).await?;
    }
    far.ask(body()).await?;
    let micros = |quantile| {
        let nanos = u32::try_from(times.value_at_quantile(quantile)).unwrap_or(u32::MAX);
        f64::from(nanos) / 1e3
    };
    Ok(Figures { ask_p50_us: micros(0.5), ask_p99_us: micros(0.99), asks_per_s, tells_per_s: per_second(tells, begun) })
}

fn per_second(messages: usize, since: Instant) -> f64 {
    f64::from(u32::try_from(messages).unwrap_or(u32::MAX)) / since.elapsed().as_secs_f64()
}
