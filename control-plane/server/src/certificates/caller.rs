//! Who a token belongs to, by the API server's word (TokenReview).

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus, UserInfo};
use kube::Api;
use kube::api::PostParams;
use meshwright_api::TOKEN_AUDIENCE;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tonic::Status;

/// An answer is believed for this long; a token that was revoked meanwhile buys at most one more certificate.
const CACHED: Duration = Duration::from_secs(60);
/// A refusal is remembered for this long, so that who tries again and again costs the API server nothing. Not longer: a token may become
/// good, as one of a pod that the API server has only just heard of.
const REFUSED: Duration = Duration::from_secs(10);
const CACHE_SIZE: usize = 4096;
/// Reviews under way at once. Everybody may call; the API server must not notice.
const REVIEWS: usize = 32;
const REVIEW_TIMEOUT: Duration = Duration::from_secs(5);
/// A service account token has about 1 kB.
const MAX_TOKEN: usize = 16 * 1024;
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";

/// A pod that proved its service account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Namespace of the pod and the account.
    pub namespace: String,
    /// Name of the service account.
    pub account: String,
    /// Name of the pod.
    pub pod: String,
    /// Name of its node, where the API server says it.
    pub node: Option<String>,
}

type TokenHash = [u8; 32];

/// Asks the API server, and remembers its answers for a short time.
pub struct Callers {
    reviews: Api<TokenReview>,
    known: Cache<Caller>,
    /// Apart from the others, so that a flood of bad tokens does not push out the good ones.
    refused: Cache<&'static str>,
    slots: Semaphore,
}

impl Callers {
    /// With the client of this control plane, which may create TokenReviews.
    pub fn new(client: kube::Client) -> Self {
        Self {
            reviews: Api::all(client),
            known: Cache::new(CACHED),
            refused: Cache::new(REFUSED),
            slots: Semaphore::new(REVIEWS),
        }
    }

    /// Whose token this is.
    pub async fn identify(&self, token: &str) -> Result<Caller, Status> {
        if token.len() > MAX_TOKEN {
            return Err(Status::unauthenticated("token is too long"));
        }
        let hash: TokenHash = Sha256::digest(token.as_bytes()).into();
        if let Some(caller) = self.known.get(&hash) {
            return Ok(caller);
        }
        if let Some(why) = self.refused.get(&hash) {
            return Err(Status::unauthenticated(why));
        }
        // Who has to wait for a slot would wait for an API server that is slow already; agents try again.
        let Ok(_slot) = self.slots.try_acquire() else {
            return Err(Status::unavailable("too many token reviews under way"));
        };
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: token.to_owned(),
                audiences: Some(vec![TOKEN_AUDIENCE.to_owned()]),
            },
            ..TokenReview::default()
        };
        let params = PostParams::default();
        let answer = tokio::time::timeout(REVIEW_TIMEOUT, self.reviews.create(&params, &review)).await;
        let review = match answer {
            Ok(Ok(review)) => review,
            // The cause is for our own log: it says more about the cluster than a caller should learn.
            Ok(Err(error)) => {
                tracing::warn!(%error, "could not create token review");
                return Err(Status::unavailable("token review failed"));
            }
            Err(_) => return Err(Status::unavailable("token review timed out")),
        };
        match vouched_for(review.status.unwrap_or_default()) {
            Ok(caller) => {
                self.known.put(hash, caller.clone());
                Ok(caller)
            }
            Err(why) => {
                self.refused.put(hash, why);
                Err(Status::unauthenticated(why))
            }
        }
    }
}

/// Answers by token, of bounded size and age.
struct Cache<T> {
    life: Duration,
    entries: Mutex<HashMap<TokenHash, (T, Instant)>>,
}

impl<T: Clone> Cache<T> {
    fn new(life: Duration) -> Self {
        Self { life, entries: Mutex::default() }
    }

    fn get(&self, hash: &TokenHash) -> Option<T> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.get(hash).filter(|(_, since)| since.elapsed() < self.life).map(|(answer, _)| answer.clone())
    }

    fn put(&self, hash: TokenHash, answer: T) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= CACHE_SIZE {
            entries.retain(|_, (_, since)| since.elapsed() < self.life);
        }
        if entries.len() < CACHE_SIZE {
            entries.insert(hash, (answer, Instant::now()));
        }
    }
}

fn vouched_for(status: TokenReviewStatus) -> Result<Caller, &'static str> {
    let refuse = Err;
    if status.authenticated != Some(true) {
        return refuse("the API server does not accept the token");
    }
    // An authenticator that knows nothing of audiences answers without them: then the token may be for anybody.
    if !status.audiences.is_some_and(|audiences| audiences.iter().any(|one| one == TOKEN_AUDIENCE)) {
        return refuse("the token is not for the audience meshwright.io/ca");
    }
    let user = status.user.unwrap_or_default();
    let account = user.username.as_deref().and_then(|name| name.strip_prefix("system:serviceaccount:"));
    let Some((namespace, account)) = account.and_then(|account| account.split_once(':')) else {
        return refuse("the token is not a service account's");
    };
    let (Some(pod), Some(_)) = (extra(&user, POD_NAME), extra(&user, POD_UID)) else {
        return refuse("the token is not bound to a pod");
    };
    Ok(Caller {
        namespace: namespace.to_owned(),
        account: account.to_owned(),
        pod: pod.to_owned(),
        node: extra(&user, NODE_NAME).map(str::to_owned),
    })
}

fn extra<'a>(user: &'a UserInfo, key: &str) -> Option<&'a str> {
    let values = user.extra.as_ref()?.get(key)?;
    values.first().map(String::as_str).filter(|value| !value.is_empty())
}
