//! What every story shares: the API client, the runtime, the programs beside the tests.

use kube::Client;
use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;
use tokio::runtime::Runtime;

/// Why a story failed; for people.
#[derive(Debug)]
pub struct Why(pub String);

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl<E: std::error::Error> From<E> for Why {
    fn from(error: E) -> Self {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(inner) = source {
            text.push_str(&format!(": {inner}"));
            source = inner.source();
        }
        Why(text)
    }
}

/// Outcome of a story or of a step of it.
pub type Outcome<T = ()> = Result<T, Why>;

/// Fails a story with a formatted reason.
macro_rules! fail {
    ($($text:tt)*) => { return Err($crate::world::Why(format!($($text)*))) };
}
pub(crate) use fail;

/// A story may wait this long for a condition; generous, because two cores serve everything.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// Asks `question` until it answers; for things that no single watch shows.
pub async fn until<T, F>(what: &str, question: impl Fn() -> F) -> Outcome<T>
where
    F: Future<Output = Outcome<Option<T>>>,
{
    let asking = async {
        let mut pause = tokio::time::interval(Duration::from_millis(200));
        loop {
            pause.tick().await;
            if let Some(answer) = question().await? {
                return Ok(answer);
            }
        }
    };
    match tokio::time::timeout(PATIENCE, asking).await {
        Ok(answer) => answer,
        Err(_) => fail!("{what}: not within {PATIENCE:?}"),
    }
}

/// The cluster under test.
pub struct World {
    runtime: Runtime,
    /// Client with the rights of the test's kubeconfig.
    pub client: Client,
    /// Folder of our release programs.
    pub programs: PathBuf,
    /// The embedded cluster's control program; absent on a cluster that somebody else owns.
    pub embedded: Option<PathBuf>,
}

impl World {
    /// Reads `KUBECONFIG`, `PATCHBAY_BIN_DIR` and `PATCHBAY_CLUSTER` (the control program).
    pub fn connect() -> Outcome<World> {
        rustls::crypto::aws_lc_rs::default_provider()
            .install_default()
            .map_err(|_| Why("a crypto provider was installed before ours".into()))?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?;
        let client = runtime.block_on(async {
            let config = kube::Config::infer().await?;
            Ok::<_, Why>(Client::try_from(config)?)
        })?;
        let programs = std::env::var_os("PATCHBAY_BIN_DIR")
            .map(PathBuf::from)
            .ok_or_else(|| Why("PATCHBAY_BIN_DIR names no folder; run `make test`".into()))?;
        let embedded = std::env::var_os("PATCHBAY_CLUSTER").map(PathBuf::from);
        Ok(World {
            runtime,
            client,
            programs,
            embedded,
        })
    }

    /// Runs one story to its end.
    pub fn run<F>(&self, story: impl FnOnce() -> F) -> Outcome
    where
        F: Future<Output = Outcome>,
    {
        self.runtime.block_on(story())
    }
}
