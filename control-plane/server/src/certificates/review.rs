//! TokenReviews, remembered for a minute: the API server throttles them long before signing costs anything.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use kube::api::PostParams;
use kube::{Api, Client};
use meshwright_api::TOKEN_AUDIENCE;
use sha2::{Digest, Sha256};
use tonic::Status;

use super::caller::{Caller, Refusal, caller};

/// A revoked token must not work for longer than this.
const REMEMBERED: Duration = Duration::from_secs(60);
const TIMEOUT: Duration = Duration::from_secs(5);

type Known = HashMap<[u8; 32], (Instant, Caller)>;

/// Asks the API server who a token belongs to.
#[derive(Clone)]
pub struct Reviewer {
    client: Client,
    trust_domain: Arc<str>,
    known: Arc<Mutex<Known>>,
}

impl Reviewer {
    /// Identities are in `trust_domain`.
    pub fn new(client: Client, trust_domain: &str) -> Self {
        Self { client, trust_domain: trust_domain.into(), known: Arc::default() }
    }

    /// The caller, or a metric label and the status to answer with. The token itself is never logged or kept.
    pub async fn identify(&self, token: &str) -> Result<Caller, (&'static str, Status)> {
        let key: [u8; 32] = Sha256::digest(token).into();
        if let Some(caller) = self.remembered(&key) {
            return Ok(caller);
        }
        let spec = TokenReviewSpec { token: token.to_owned(), audiences: Some(vec![TOKEN_AUDIENCE.to_owned()]) };
        let review = TokenReview { spec, ..TokenReview::default() };
        let api: Api<TokenReview> = Api::all(self.client.clone());
        let params = PostParams::default();
        let answer = match tokio::time::timeout(TIMEOUT, api.create(&params, &review)).await {
            Ok(Ok(answer)) => answer.status.unwrap_or_default(),
            Ok(Err(error)) => return Err(unavailable(&error.to_string())),
            Err(_) => return Err(unavailable("no answer in time")),
        };
        let caller = caller(&answer, &self.trust_domain).map_err(|refusal: Refusal| {
            tracing::warn!(%refusal, "token refused");
            ("refused", Status::unauthenticated(refusal.to_string()))
        })?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, (since, _)| since.elapsed() < REMEMBERED);
        known.insert(key, (Instant::now(), caller.clone()));
        Ok(caller)
    }

    fn remembered(&self, key: &[u8; 32]) -> Option<Caller> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(key).filter(|(since, _)| since.elapsed() < REMEMBERED).map(|(_, caller)| caller.clone())
    }
}

fn unavailable(why: &str) -> (&'static str, Status) {
    tracing::warn!(why, "token review failed");
    ("review_failed", Status::unavailable(format!("the API server could not review the token: {why}")))
}
