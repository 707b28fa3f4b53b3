//! `agent.model`: one model provider: its breaker and its share of concurrent requests.
//!
//! Key: the provider's id, such as `openai:main`. Durable: no. Generations run outside its mailbox.
//! Lost in a crash: running generations, and what the breaker knew.

use std::sync::Arc;

use aivillage_governance::gate::{Ctx, Denied, Gate, OutputGuard};
use aivillage_runtime::{
    Actor, ActorCx, ActorProcessingErr, ActorRef, AppError, CallError, Kind, KindOptions, Mail, Reply, Topic,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

use crate::answer::TurnEvent;
use crate::config::AgentsConfig;
use crate::metrics::AgentMetrics;
use crate::provider::breaker::Breaker;
use crate::provider::openai::{GenRequest, Generation, ModelError, OpenAi};

/// Pieces of text that may wait for the topic; then the model's stream waits.
const PIECES: usize = 64;

/// What a provider understands.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub enum ModelMsg {
    /// Generates an answer; its pieces are published on the topic that the request names.
    Generate(GenRequest, Reply<Generation>),
    /// Whether requests are taken now.
    Health(Reply<ModelHealth>),
    /// Whether a generation of this activation succeeded, absent if it was broken off; sent by itself.
    Ended(Option<bool>),
}

/// State of a provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ModelHealth {
    /// False while the breaker is open or the provider is not configured.
    pub accepting: bool,
}

/// The behaviour; its data is [`Model`].
#[derive(Debug)]
pub struct ModelActor;

impl Kind for ModelActor {
    const NAME: &'static str = "agent.model";
    type Body = ModelMsg;

    fn options() -> KindOptions {
        // The breaker must not be forgotten between two requests.
        KindOptions::default().idle(None)
    }
}

/// An activation of a provider.
#[derive(Debug)]
pub struct Model {
    cx: ActorCx,
    client: Result<Arc<OpenAi>, ModelError>,
    free: Arc<Semaphore>,
    breaker: Breaker,
    metrics: Arc<AgentMetrics>,
}

impl Actor for ModelActor {
    type Msg = Mail<ModelMsg>;
    type State = Model;
    type Arguments = ActorCx;

    async fn pre_start(&self, _: ActorRef<Self::Msg>, cx: ActorCx) -> Result<Model, ActorProcessingErr> {
        let config: AgentsConfig = cx.config("agents")?;
        let provider = config.provider(cx.key()).cloned();
        let free = provider.as_ref().map_or(1, |provider| provider.max_concurrency);
        let client = match provider {
            Some(provider) => OpenAi::open(provider).map(Arc::new),
            None => Err(ModelError::Unavailable { provider: cx.key().to_owned(), detail: "not configured".to_owned() }),
        };
        let metrics = cx.village().metrics();
        Ok(Model { cx, client, free: Arc::new(Semaphore::new(free)), breaker: Breaker::default(), metrics })
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        mail: Self::Msg,
        model: &mut Model,
    ) -> Result<(), ActorProcessingErr> {
        match mail.body {
            ModelMsg::Generate(request, reply) => model.generate(myself, request, reply),
            ModelMsg::Health(reply) => reply.send(model.health()),
            ModelMsg::Ended(Some(ok)) => model.breaker.record(ok, Instant::now()),
            ModelMsg::Ended(None) => model.breaker.release(),
        }
        Ok(())
    }
}

impl Model {
    fn health(&self) -> ModelHealth {
        ModelHealth { accepting: self.client.is_ok() && !self.breaker.is_open(Instant::now()) }
    }

    fn generate(&mut self, myself: ActorRef<Mail<ModelMsg>>, request: GenRequest, mut reply: Reply<Generation>) {
        let client = match &self.client {
            Ok(client) => client.clone(),
            Err(error) => return reply.fail(AppError::from(error.clone())),
        };
        if !self.breaker.admits(Instant::now()) {
            let detail = "it failed repeatedly and is left alone for some seconds".to_owned();
            return reply.fail(AppError::from(ModelError::Unavailable { provider: self.cx.key().to_owned(), detail }));
        }
        let topic = request.stream_to.as_ref().map(|name| self.cx.village().topic(name));
        // Words that are not streamed pass the gate as a whole, in the turn.
        let gate = Gate::of(self.cx.village()).filter(|_| topic.is_some());
        let guard = gate.map(|gate| gate.guard_output(Ctx::current("")));
        let (cx, free, metrics) = (self.cx.clone(), self.free.clone(), self.metrics.clone());
        let work = async move {
            let ended = EndedOnDrop { cx, myself, ok: None };
            let Ok(_permit) = free.acquire_owned().await else { return };
            let done = tokio::select! {
                done = Box::pin(run(&client, &request, topic, guard)) => done,
                () = reply.closed() => return,
            };
            // A refused request says nothing about the provider's health, and neither do words that may not go out.
            let ok = match &done {
                Ok(answer) => !answer.cut,
                Err(Failed::Model(error)) => !matches!(error, ModelError::Unavailable { .. }),
                Err(Failed::Withheld(_)) => true,
            };
            metrics.model_done(done.is_ok());
            ended.told(ok);
            reply.complete(done);
        };
        self.cx.village().task("agent.model.generate", work).detach();
    }
}

/// Tells the breaker how a generation ended, also when it was dropped: the one probe of an open breaker must come back.
struct EndedOnDrop {
    cx: ActorCx,
    myself: ActorRef<Mail<ModelMsg>>,
    ok: Option<bool>,
}

impl EndedOnDrop {
    fn told(mut self, ok: bool) {
        self.ok = Some(ok);
    }
}

impl Drop for EndedOnDrop {
    fn drop(&mut self) {
        self.cx.tell_self(&self.myself, ModelMsg::Ended(self.ok));
    }
}

/// Why there is no generation.
enum Failed {
    Model(ModelError),
    /// The gate stopped the words as they came.
    Withheld(Box<Denied>),
}

impl From<Failed> for CallError {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Model(error) => AppError::from(error).into(),
            Failed::Withheld(denied) => (*denied).into(),
        }
    }
}

async fn run(
    client: &OpenAi,
    request: &GenRequest,
    topic: Option<Topic>,
    guard: Option<OutputGuard>,
) -> Result<Generation, Failed> {
    let (deltas, pieces) = mpsc::channel(PIECES);
    let generate = async {
        let done = client.generate(request, &deltas).await;
        drop(deltas);
        done.map_err(Failed::Model)
    };
    // Words that may not go out end the generation.
    tokio::try_join!(generate, publish(topic, guard, pieces)).map(|(made, ())| made)
}

async fn publish(
    topic: Option<Topic>,
    mut guard: Option<OutputGuard>,
    mut pieces: mpsc::Receiver<String>,
) -> Result<(), Failed> {
    while let Some(text) = pieces.recv().await {
        let Some(topic) = &topic else { continue };
        let text = match &mut guard {
            Some(guard) => guard.push(&text).await.map_err(Failed::Withheld)?.0,
            None => text,
        };
        post(topic, text).await;
    }
    if let (Some(topic), Some(guard)) = (&topic, &mut guard) {
        post(topic, guard.finish().await.map_err(Failed::Withheld)?.0).await;
    }
    Ok(())
}

async fn post(topic: &Topic, text: String) {
    if text.is_empty() {
        return;
    }
    let Ok(event) = serde_json::to_value(TurnEvent::Delta { text }) else { return };
    if let Err(error) = topic.post(event).await {
        tracing::debug!(%error, "a piece of an answer was not published");
    }
}
