use http::StatusCode;

use super::*;
use crate::catalog;
use crate::client::Cause;

fn a_pod(service: &str, version: &str) -> Pod {
    Pod { service: service.into(), version: version.into(), podname: format!("{service}-{version}-abc") }
}

fn a_review(rating: Option<Rating>) -> Reviews {
    Reviews {
        id: 0,
        pod: a_pod("reviews", "v2"),
        reviews: vec![Review { reviewer: "Ada".into(), text: "Good & short".into(), rating }],
        rated_by: None,
        rating_error: None,
    }
}

fn render(
    user: Option<&str>,
    details: Result<Details, CallError>,
    reviews: Result<Reviews, CallError>,
) -> String {
    product(&View {
        me: &a_pod("productpage", "v1"),
        user,
        product: &catalog::product(),
        details: &details,
        reviews: &reviews,
    })
}

fn details_ok() -> Result<Details, CallError> {
    Ok(catalog::details(a_pod("details", "v1")))
}

#[test]
fn the_page_names_every_pod_that_answered() {
    let mut reviews = a_review(Some(Rating { stars: 4, color: Color::Black }));
    reviews.rated_by = Some(a_pod("ratings", "v1"));
    let html = render(None, details_ok(), Ok(reviews));
    for pod in ["productpage-v1-abc", "details-v1-abc", "reviews-v2-abc", "ratings-v1-abc"] {
        assert!(html.contains(pod), "{pod}");
    }
    assert!(html.contains("4 of 5 stars"));
    assert!(html.contains("★★★★<s>★</s>"));
    assert!(!html.contains("role=\"alert\""));
}

#[test]
fn without_ratings_there_are_no_stars_and_no_error() {
    let html = render(None, details_ok(), Ok(a_review(None)));
    assert!(!html.contains('★'));
    assert!(!html.contains("role=\"alert\""));
    assert!(html.contains("does not show stars"));
}

#[test]
fn the_colour_of_the_stars_follows_the_rating() {
    let red = render(None, details_ok(), Ok(a_review(Some(Rating { stars: 5, color: Color::Red }))));
    assert!(red.contains("stars red"));
    assert!(!red.contains("stars black"));
}

#[test]
fn more_stars_than_there_are_do_not_break_the_page() {
    let html = render(None, details_ok(), Ok(a_review(Some(Rating { stars: 200, color: Color::Red }))));
    assert!(html.contains("5 of 5 stars"));
}

#[test]
fn a_failed_backend_is_told_and_the_rest_is_shown() {
    let error = CallError { service: "reviews", cause: Cause::Status(StatusCode::SERVICE_UNAVAILABLE) };
    let html = render(None, details_ok(), Err(error));
    assert!(html.contains("reviews answered 503 Service Unavailable"));
    assert!(html.contains("no answer"));
    assert!(html.contains("Jules Verne"));

    let error = CallError { service: "details", cause: Cause::Timeout(std::time::Duration::from_secs(2)) };
    let html = render(None, Err(error), Ok(a_review(None)));
    assert!(html.contains("details did not answer within 2s"));
    assert!(html.contains("Good &#38; short"));
}

#[test]
fn what_others_send_cannot_become_markup() {
    let mut reviews = a_review(None);
    reviews.reviews[0].text = "<script>alert(1)</script>".into();
    reviews.pod.version = "\"><img>".into();
    reviews.rating_error = Some("<i>".into());
    let html = render(Some("<b>jason"), details_ok(), Ok(reviews));
    for bad in ["<script", "<img", "<i>&", "<b>jason"] {
        assert!(!html.contains(bad), "{bad}");
    }
    assert!(html.contains("&#60;b&#62;jason"));
}

#[test]
fn pages_fetch_nothing_from_elsewhere() {
    let me = a_pod("productpage", "v1");
    for html in [render(Some("jason"), details_ok(), Ok(a_review(None))), home(&me, &catalog::product())] {
        assert!(!html.contains("http://") && !html.contains("https://") && !html.contains("url("));
    }
}

#[test]
fn the_account_corner_offers_the_way_in_or_out() {
    assert!(render(None, details_ok(), Ok(a_review(None))).contains("action=\"/login\""));
    let signed_in = render(Some("jason"), details_ok(), Ok(a_review(None)));
    assert!(signed_in.contains("Signed in as <b>jason</b>") && signed_in.contains("href=\"/logout\""));
}
