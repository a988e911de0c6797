//! A client that never stops: it calls other services on connections that it keeps and on a new one for each request, and counts. To see
//! what a mesh that pods join and leave does to their connections. `/calls` says how it went.

use std::error::Error;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::routing::get;
use axum::{Json, Router};
use clap::Args;
use http::header::{CONNECTION, HOST, USER_AGENT};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::net::{TcpStream, lookup_host};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

/// Longest time for an answer, or it has failed.
const PATIENCE: Duration = Duration::from_secs(10);
/// Another connection is kept for each of these, so that some are of every time.
const AGE: Duration = Duration::from_secs(10);
/// Connections that are kept to each target.
const KEPT: usize = 24;
/// On each of them there is a request as often.
const SECOND: Duration = Duration::from_secs(1);
/// Failures that are told in words.
const TOLD: usize = 20;

/// Whom to call, how often, and as whom.
#[derive(Args, Clone)]
pub struct Targets {
    /// Whole URLs.
    #[arg(long = "url", env = "CALL_URLS", value_delimiter = ',', required = true)]
    urls: Vec<Uri>,
    /// New connections a second to each of them.
    #[arg(long, env = "CALL_RATE", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rate: u32,
    /// User agent; a dash and the number of the connection come behind it.
    #[arg(long, env = "CALL_USER_AGENT", default_value = "bookinfo-caller")]
    user_agent: String,
    /// Seconds after which a kept connection is ended by the caller itself, and another opened; unset: never.
    #[arg(long, env = "CALL_MAX_AGE")]
    max_age: Option<u64>,
}

/// What came of the calls.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Calls {
    /// Number of the newest connection, of all targets together. It is taken before the connection is opened.
    pub connections: u64,
    pub targets: Vec<Tally>,
}

/// What came of the calls of one target.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    pub url: String,
    pub answered: u64,
    pub failed: u64,
    /// Kept connections that are open.
    pub kept: u64,
    /// Kept connections that the other side ended with an answer which said so.
    pub closed: u64,
    /// Kept connections that ended in any other way.
    pub broken: u64,
    /// The first failures.
    pub failures: Vec<String>,
}

/// Calls one URL.
#[derive(Clone)]
struct Caller {
    url: Uri,
    user_agent: Arc<str>,
    max_age: Option<Duration>,
    connections: Arc<AtomicU64>,
    tally: Arc<Mutex<Tally>>,
}

/// Begins to call; the routes say how it goes.
pub fn routes(targets: Targets) -> Router {
    let Targets { urls, rate, user_agent, max_age } = targets;
    let (connections, user_agent) = (Arc::new(AtomicU64::new(0)), Arc::from(user_agent));
    let callers: Vec<Caller> = urls
        .into_iter()
        .map(|url| Caller {
            tally: Arc::new(Mutex::new(Tally { url: url.to_string(), ..Tally::default() })),
            url,
            max_age: max_age.map(Duration::from_secs),
            user_agent: Arc::clone(&user_agent),
            connections: Arc::clone(&connections),
        })
        .collect();
    for caller in &callers {
        tokio::spawn(caller.clone().on_new_connections(SECOND / rate));
        tokio::spawn(caller.clone().on_kept_connections());
    }
    let tell = move || {
        let targets = callers.iter().map(|caller| caller.tally().clone()).collect();
        let calls = Calls { connections: connections.load(Ordering::SeqCst), targets };
        async move { Json(calls) }
    };
    Router::new().route("/calls", get(tell))
}

impl Caller {
    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn on_new_connections(self, every: Duration) {
        let mut tick = interval(every);
        // What could not be sent in time is not sent at once afterwards.
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let caller = self.clone();
            tokio::spawn(async move {
                let number = caller.number();
                match caller.open(number).await {
                    Ok(mut connection) => {
                        let outcome = connection.ask().await;
                        caller.note(number, Some(&connection.way), &outcome);
                    }
                    Err(why) => caller.note(number, None, &Err(why)),
                }
            });
        }
    }

    async fn on_kept_connections(self) {
        let mut tick = interval(AGE);
        for _ in 0..KEPT {
            tick.tick().await;
            tokio::spawn(self.clone().on_kept_connection());
        }
    }

    /// On one, and on another when that ends.
    async fn on_kept_connection(self) {
        let mut tick = interval(SECOND);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let number = self.number();
            let mut connection = match self.open(number).await {
                Ok(connection) => connection,
                Err(why) => {
                    self.note(number, None, &Err(why));
                    continue;
                }
            };
            self.tally().kept += 1;
            let end = loop {
                tick.tick().await;
                if self.max_age.is_some_and(|age| connection.way.since.elapsed() >= age) {
                    break End::Ours;
                }
                let outcome = connection.ask().await;
                self.note(number, Some(&connection.way), &outcome);
                match outcome {
                    Ok(Answer::Goodbye) => break End::Closed,
                    Ok(Answer::Whole) => {}
                    Err(_) => break End::Broken,
                }
            };
            let mut tally = self.tally();
            tally.kept -= 1;
            match end {
                End::Ours => {}
                End::Closed => tally.closed += 1,
                End::Broken => tally.broken += 1,
            }
        }
    }

    fn number(&self) -> u64 {
        self.connections.fetch_add(1, Ordering::SeqCst) + 1
    }

    fn note(&self, number: u64, way: Option<&Way>, outcome: &Result<Answer, String>) {
        let mut tally = self.tally();
        match outcome {
            Ok(_) => tally.answered += 1,
            Err(why) => {
                let way = way.map(|way| format!(" {way}")).unwrap_or_default();
                let failure = format!("connection {number}{way}, at {:.3}: {why}", now());
                tracing::warn!(url = %self.url, failure, "a call failed");
                tally.failed += 1;
                if tally.failures.len() < TOLD {
                    tally.failures.push(failure);
                }
            }
        }
    }

    async fn open(&self, number: u64) -> Result<Connection, String> {
        let opening = async {
            let (host, port) = (self.url.host().unwrap_or_default(), self.url.port_u16().unwrap_or(80));
            let addresses: Vec<SocketAddr> = lookup_host((host, port)).await?.collect();
            // One after the other, each for itself: of a headless Service each is a pod.
            let turn =
                number.checked_rem(addresses.len() as u64).and_then(|turn| addresses.get(turn as usize));
            let address = turn.ok_or_else(|| std::io::Error::other(format!("{host} has no address")))?;
            let stream = TcpStream::connect(address).await?;
            let way = Way { from: stream.local_addr()?, to: *address, since: Instant::now(), calls: 0 };
            let (requests, connection) =
                handshake(TokioIo::new(stream)).await.map_err(std::io::Error::other)?;
            let driver = tokio::spawn(async move { drop(connection.await) });
            Ok::<_, std::io::Error>((requests, driver, way))
        };
        let (requests, driver, way) = timeout(PATIENCE, opening)
            .await
            .map_err(|_| format!("not open within {PATIENCE:?}"))?
            .map_err(|error| format!("opening: {}", whole(&error)))?;
        let user_agent = format!("{}-{number}", self.user_agent);
        Ok(Connection { requests, driver, url: self.url.clone(), user_agent, way })
    }
}

/// How a kept connection ended.
enum End {
    Ours,
    Closed,
    Broken,
}

/// How a request was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Whole,
    /// And the connection ends.
    Goodbye,
}

/// Seconds since 1970: what logs of others are compared with.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// An error with all its causes: the first of them says little.
fn whole(error: &dyn Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {}", whole(cause)),
        None => error.to_string(),
    }
}

/// Where a connection is, and for how long: enough to find it in what others saw.
#[derive(Clone, Copy, Debug)]
struct Way {
    from: SocketAddr,
    to: SocketAddr,
    since: Instant,
    /// How often something was asked.
    calls: u64,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to, since, calls } = self;
        write!(f, "from port {} to {to}, open for {:?}, call {calls}", from.port(), since.elapsed())
    }
}

struct Connection {
    requests: SendRequest<Empty<Bytes>>,
    driver: JoinHandle<()>,
    url: Uri,
    user_agent: String,
    way: Way,
}

impl Connection {
    async fn ask(&mut self) -> Result<Answer, String> {
        self.way.calls += 1;
        let path = self.url.path_and_query().map_or("/", |path| path.as_str());
        let host = self.url.authority().map_or("", |authority| authority.as_str());
        let request = Request::get(path).header(HOST, host).header(USER_AGENT, &self.user_agent);
        let request = request.body(Empty::new()).map_err(|error| error.to_string())?;
        let asking = async {
            self.requests.ready().await?;
            let answer = self.requests.send_request(request).await?;
            let goodbye = answer.headers().get(CONNECTION).is_some_and(|value| value == "close");
            let status = answer.status();
            answer.into_body().collect().await?;
            Ok::<_, hyper::Error>((status, goodbye))
        };
        match timeout(PATIENCE, asking).await {
            Err(_) => Err(format!("no answer within {PATIENCE:?}")),
            Ok(Err(error)) => Err(whole(&error)),
            Ok(Ok((status, _))) if status != StatusCode::OK => Err(format!("status {status}")),
            Ok(Ok((_, true))) => Ok(Answer::Goodbye),
            Ok(Ok((_, false))) => Ok(Answer::Whole),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}
