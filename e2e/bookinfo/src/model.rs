//! The JSON that the services send each other and to the user.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Who answered. In every JSON answer, so that shares can be counted with nothing but curl.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    pub service: String,
    pub version: String,
    pub podname: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Product {
    pub id: u32,
    pub title: String,
    pub description: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Details {
    pub id: u32,
    #[serde(flatten)]
    pub pod: Pod,
    pub author: String,
    pub year: u16,
    pub publisher: String,
    pub language: String,
    pub chapters: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reviews {
    pub id: u32,
    #[serde(flatten)]
    pub pod: Pod,
    pub reviews: Vec<Review>,
    /// The pod the stars came from; none in v1, and none when ratings could not be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rated_by: Option<Pod>,
    /// Why there are no stars although this version shows them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rating_error: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Review {
    pub reviewer: String,
    pub text: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rating: Option<Rating>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rating {
    pub stars: u8,
    pub color: Color,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Color {
    Black,
    Red,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ratings {
    pub id: u32,
    #[serde(flatten)]
    pub pod: Pod,
    pub ratings: BTreeMap<String, u8>,
}
