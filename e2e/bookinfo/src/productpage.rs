//! The front: one HTML page for people, the same content as JSON for programs.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderMap, LOCATION, SET_COOKIE};
use http::{HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};

use crate::args::{BackendUrls, BaseUrl};
use crate::client::{CallError, Client};
use crate::model::{Details, Pod, Ratings, Reviews};
use crate::propagate::onward;
use crate::serve::error;
use crate::{catalog, page, session};

/// The page brings everything along, so it may load nothing.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'self'";

struct Service {
    me: Pod,
    urls: BackendUrls,
    client: Client,
}

type Shared = State<Arc<Service>>;

#[derive(Deserialize)]
struct View {
    u: Option<String>,
}

#[derive(Deserialize)]
struct Login {
    #[serde(default)]
    username: String,
}

pub fn routes(me: Pod, urls: BackendUrls, client: Client) -> Router {
    Router::new()
        .route("/", get(home))
        .route("/productpage", get(productpage))
        .route("/login", get(login))
        .route("/logout", get(async || go_to_page(session::logout())))
        .route("/api/v1/products", get(async || Json([catalog::product()])))
        .route("/api/v1/products/{id}", get(api_details))
        .route("/api/v1/products/{id}/reviews", get(api_reviews))
        .route("/api/v1/products/{id}/ratings", get(api_ratings))
        .with_state(Arc::new(Service { me, urls, client }))
}

async fn home(State(service): Shared) -> Response {
    html(page::home(&service.me, &catalog::product()))
}

/// Always 200: the page is there, also when a backend is not, and says what is missing.
async fn productpage(State(service): Shared, Query(view): Query<View>, headers: HeaderMap) -> Response {
    let user = session::user(&headers, view.u.as_deref());
    let onward = onward(&headers, user.as_ref());
    let (details, reviews) = tokio::join!(
        service.client.get::<Details>("details", &service.urls.details, "/details/0", onward.clone()),
        service.client.get::<Reviews>("reviews", &service.urls.reviews, "/reviews/0", onward),
    );
    html(page::product(&page::View {
        me: &service.me,
        user: user.as_ref().and_then(|user| user.to_str().ok()),
        product: &catalog::product(),
        details: &details,
        reviews: &reviews,
    }))
}

async fn login(Query(Login { username }): Query<Login>) -> Response {
    match session::login(&username) {
        Some(cookie) => go_to_page(cookie),
        None => error(StatusCode::BAD_REQUEST, "a username is 1 to 40 letters, digits, or one of - _ . @"),
    }
}

async fn api_details(State(service): Shared, Path(id): Path<u32>, headers: HeaderMap) -> Response {
    service.api::<Details>("details", &service.urls.details, id, &headers).await
}

async fn api_reviews(State(service): Shared, Path(id): Path<u32>, headers: HeaderMap) -> Response {
    service.api::<Reviews>("reviews", &service.urls.reviews, id, &headers).await
}

async fn api_ratings(State(service): Shared, Path(id): Path<u32>, headers: HeaderMap) -> Response {
    service.api::<Ratings>("ratings", &service.urls.ratings, id, &headers).await
}

impl Service {
    /// Passes a backend's answer on; unlike the page, a program wants a failure as a status code.
    async fn api<T>(&self, name: &'static str, base: &BaseUrl, id: u32, headers: &HeaderMap) -> Response
    where
        T: Serialize + for<'de> Deserialize<'de>,
    {
        if catalog::check(id).is_err() {
            return error(StatusCode::NOT_FOUND, "no such product");
        }
        let onward = onward(headers, session::user(headers, None).as_ref());
        let answer: Result<T, CallError> =
            self.client.get(name, base, &format!("/{name}/{id}"), onward).await;
        match answer {
            Ok(answer) => Json(answer).into_response(),
            Err(cause) => error(cause.status(), &cause.to_string()),
        }
    }
}

fn html(body: String) -> Response {
    // Never cached: a reload is how people watch the traffic move.
    let headers = [(CACHE_CONTROL, "no-store"), (CONTENT_SECURITY_POLICY, POLICY)];
    (headers, Html(body)).into_response()
}

fn go_to_page(cookie: HeaderValue) -> Response {
    let headers = [(LOCATION, HeaderValue::from_static("/productpage")), (SET_COOKIE, cookie)];
    (StatusCode::SEE_OTHER, headers).into_response()
}
