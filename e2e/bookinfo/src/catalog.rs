//! The one book we sell. A constant, because the sample is about calls between services, not about storage.

use std::collections::BTreeMap;

use http::StatusCode;

use crate::model::{Details, Pod, Product, Ratings, Review};

pub const ID: u32 = 0;

pub fn product() -> Product {
    Product {
        id: ID,
        title: "Around the World in Eighty Days".into(),
        description: "A punctual man bets his fortune that every connection will hold: eighty days, one \
                      carpet bag, no second try. Trains end in the jungle, ships burn their own decks, and \
                      a detective follows the wrong man. A novel about timetables, detours and what to do \
                      when a route is gone."
            .into(),
    }
}

pub fn details(pod: Pod) -> Details {
    Details {
        id: ID,
        pod,
        author: "Jules Verne".into(),
        year: 1873,
        publisher: "Pierre-Jules Hetzel".into(),
        language: "French".into(),
        chapters: 37,
    }
}

pub fn reviews() -> Vec<Review> {
    [
        (
            "Ada",
            "Something fails in every chapter, and every time there is another way round. I read it in one \
             night and caught my train in the morning.",
        ),
        (
            "Tomas",
            "He plans for the worst and stays polite when it comes. Nobody has written a better fallback \
             than the elephant.",
        ),
    ]
    .map(|(reviewer, text)| Review { reviewer: reviewer.into(), text: text.into(), rating: None })
    .into()
}

pub fn ratings(pod: Pod) -> Ratings {
    Ratings { id: ID, pod, ratings: BTreeMap::from([("Ada".into(), 5), ("Tomas".into(), 4)]) }
}

/// Every service answers 404 for a book that we do not have.
pub fn check(id: u32) -> Result<(), StatusCode> {
    if id == ID { Ok(()) } else { Err(StatusCode::NOT_FOUND) }
}
