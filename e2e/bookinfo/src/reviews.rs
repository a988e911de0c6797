//! The reviews service in its three versions: without stars, with black ones, with red ones.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::routing::get;
use axum::{Json, Router};
use http::{HeaderMap, StatusCode};

use crate::args::{BaseUrl, ReviewsVersion};
use crate::catalog;
use crate::client::Client;
use crate::model::{Color, Pod, Rating, Ratings, Reviews};
use crate::propagate::{END_USER, onward};

struct Service {
    me: Pod,
    stars: Option<Color>,
    ratings: BaseUrl,
    client: Client,
}

pub fn routes(me: Pod, version: ReviewsVersion, ratings: BaseUrl, client: Client) -> Router {
    let stars = match version {
        ReviewsVersion::V1 => None,
        ReviewsVersion::V2 => Some(Color::Black),
        ReviewsVersion::V3 => Some(Color::Red),
    };
    let service = Arc::new(Service { me, stars, ratings, client });
    Router::new().route("/reviews/{id}", get(reviews)).with_state(service)
}

async fn reviews(
    State(service): State<Arc<Service>>,
    Path(id): Path<u32>,
    headers: HeaderMap,
) -> Result<Json<Reviews>, StatusCode> {
    catalog::check(id)?;
    let mut answer = Reviews {
        id,
        pod: service.me.clone(),
        reviews: catalog::reviews(),
        rated_by: None,
        rating_error: None,
    };
    if let Some(color) = service.stars {
        let onward = onward(&headers, headers.get(END_USER));
        let path = format!("/ratings/{id}");
        // The texts are worth having without the stars, so a failure of ratings is told, not passed on.
        match service.client.get::<Ratings>("ratings", &service.ratings, &path, onward).await {
            Ok(Ratings { id: _, pod, ratings }) => {
                for review in &mut answer.reviews {
                    let stars = ratings.get(&review.reviewer);
                    review.rating = stars.map(|&stars| Rating { stars, color });
                }
                answer.rated_by = Some(pod);
            }
            Err(error) => answer.rating_error = Some(error.to_string()),
        }
    }
    Ok(Json(answer))
}
