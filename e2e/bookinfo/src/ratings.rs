//! The ratings service: how many stars each reader gave.

use axum::extract::Path;
use axum::routing::get;
use axum::{Json, Router};

use crate::catalog;
use crate::model::Pod;

pub fn routes(me: Pod) -> Router {
    Router::new().route(
        "/ratings/{id}",
        get(async move |Path(id): Path<u32>| catalog::check(id).map(|()| Json(catalog::ratings(me.clone())))),
    )
}
