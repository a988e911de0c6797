//! Requests through the whole call tree.

use axum::Json;
use axum::routing::get as on_get;

use super::*;

#[tokio::test]
async fn each_version_of_reviews_shows_its_stars() {
    let ratings = start_ratings().await;
    for (version, stars) in [
        (ReviewsVersion::V1, None),
        (ReviewsVersion::V2, Some("stars black")),
        (ReviewsVersion::V3, Some("stars red")),
    ] {
        let reviews = start_reviews(version, ratings.clone()).await;
        let page = start_page(reviews, ratings.clone(), PATIENT).await;
        let answer = get(&page, "/productpage?u=normal", &[]).await;
        assert_eq!(answer.status(), 200);
        assert_eq!(header(answer.headers(), "x-bookinfo-version"), "productpage-v1");
        let html = answer.body();
        for class in ["stars black", "stars red"] {
            assert_eq!(html.contains(&format!("class=\"{class}\"")), stars == Some(class), "{version:?}");
        }
        assert!(html.contains(&format!("reviews-{}-pod", version.as_str())));
        assert_eq!(html.contains("ratings-v1-pod"), stars.is_some());
    }
}

#[tokio::test]
async fn the_api_carries_pod_and_version() {
    let ratings = start_ratings().await;
    let reviews = start_reviews(ReviewsVersion::V3, ratings.clone()).await;
    let page = start_page(reviews.clone(), ratings, PATIENT).await;

    assert_eq!(get_json(&page, "/api/v1/products").await[0]["id"], 0);
    assert_eq!(get_json(&page, "/api/v1/products/0").await["podname"], "details-v1-pod");
    assert_eq!(get_json(&page, "/api/v1/products/0/ratings").await["ratings"]["Ada"], 5);
    let through_the_page = get_json(&page, "/api/v1/products/0/reviews").await;
    assert_eq!(through_the_page["version"], "v3");
    assert_eq!(through_the_page["podname"], "reviews-v3-pod");
    assert_eq!(through_the_page["reviews"][0]["rating"]["color"], "red");

    let direct = get(&reviews, "/reviews/0", &[]).await;
    assert_eq!(header(direct.headers(), "x-bookinfo-version"), "reviews-v3");
    assert_eq!(get(&page, "/api/v1/products/7", &[]).await.status(), 404);
    assert_eq!(get(&reviews, "/reviews/7", &[]).await.status(), 404);
    let missing = get(&reviews, "/nothing", &[]).await;
    assert_eq!(
        (missing.status().as_u16(), header(missing.headers(), "x-bookinfo-version")),
        (404, "reviews-v3")
    );
    assert_eq!(get(&reviews, "/health", &[]).await.status(), 200);
    assert_eq!(get(&page, "/health", &[]).await.status(), 200);
}

/// Reviews that tells in its text which headers came.
async fn start_echo() -> BaseUrl {
    let me = pod("reviews", "v1");
    let echo = Router::new().route(
        "/reviews/0",
        on_get(async |headers: HeaderMap| {
            let seen = ["end-user", "traceparent", "x-request-id", "user-agent", "cookie"]
                .map(|name| format!("{name}={}", header(&headers, name)));
            Json(serde_json::json!({
                "id": 0, "service": "reviews", "version": "v1", "podname": "echo",
                "reviews": [{ "reviewer": "echo", "text": seen.join(" ") }],
            }))
        }),
    );
    start(me, echo).await
}

#[tokio::test]
async fn the_user_and_the_trace_reach_the_backend() {
    let page = start_page(start_echo().await, nobody().await, PATIENT).await;
    let login = get(&page, "/login?username=jason", &[]).await;
    assert_eq!((login.status().as_u16(), header(login.headers(), "location")), (303, "/productpage"));
    let cookie = header(login.headers(), "set-cookie").split(';').next().unwrap();

    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let headers =
        [("cookie", cookie), ("traceparent", trace), ("x-request-id", "r1"), ("user-agent", "test/1")];
    let html = get(&page, "/productpage", &headers).await.into_body();
    let seen = format!("end-user=jason traceparent={trace} x-request-id=r1 user-agent=test/1 cookie=");
    assert!(html.contains(&format!("{seen}<")), "{html}");
    assert!(html.contains("Signed in as <b>jason</b>"));

    let html = get(&page, "/productpage", &[("end-user", "eve")]).await.into_body();
    assert!(html.contains("end-user=eve"));
    let html = get(&page, "/productpage?u=test", &[]).await.into_body();
    assert!(html.contains("end-user=test"));

    let logout = get(&page, "/logout", &[]).await;
    assert!(header(logout.headers(), "set-cookie").contains("Max-Age=0"));
    assert_eq!(get(&page, "/login?username=%3Cb%3E", &[]).await.status(), 400);
}

#[tokio::test]
async fn a_backend_that_is_gone_becomes_an_error_box() {
    let page = start_page(nobody().await, nobody().await, PATIENT).await;
    let answer = get(&page, "/productpage", &[]).await;
    assert_eq!(answer.status(), 200);
    assert!(answer.body().contains("reviews could not be reached: Connection refused"), "{}", answer.body());
    assert!(answer.body().contains("Jules Verne"));
    assert_eq!(get(&page, "/api/v1/products/0/reviews", &[]).await.status(), 502);
}

#[tokio::test]
async fn a_backend_that_hangs_is_given_up() {
    // Accepts connections, as the kernel does for it, and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let reviews = url(silent.local_addr().unwrap());
    let page = start_page(reviews, nobody().await, Duration::from_millis(200)).await;
    let answer = get(&page, "/productpage", &[]).await;
    assert_eq!(answer.status(), 200);
    assert!(answer.body().contains("reviews did not answer within 200ms"));
    assert_eq!(get(&page, "/api/v1/products/0/reviews", &[]).await.status(), 504);
}

#[tokio::test]
async fn reviews_without_ratings_keep_their_texts_and_say_why() {
    let reviews = start_reviews(ReviewsVersion::V2, nobody().await).await;
    let page = start_page(reviews, nobody().await, PATIENT).await;
    let html = get(&page, "/productpage", &[]).await.into_body();
    assert!(html.contains("ratings could not be reached"));
    assert!(html.contains("elephant"));
}
