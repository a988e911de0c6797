//! The command line. Every flag can also come from the environment, which is what a Deployment sets.

use std::net::SocketAddr;
use std::str::FromStr;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use http::Uri;

use crate::caller::Targets;

#[derive(Parser)]
#[command(name = "bookinfo", about = "The services of the Bookinfo sample")]
pub struct Args {
    /// Address to listen on.
    #[arg(long, env = "LISTEN", default_value = "0.0.0.0:9080", global = true)]
    pub listen: SocketAddr,
    /// Name given in answers, to tell pods apart; in a pod HOSTNAME is the pod's name.
    #[arg(long, env = "HOSTNAME", default_value = "local", global = true)]
    pub pod_name: String,
    #[command(subcommand)]
    pub service: Service,
}

#[derive(Subcommand)]
pub enum Service {
    /// The web page and the JSON API.
    Productpage(BackendUrls),
    /// Facts about the book.
    Details,
    /// What readers say; v2 and v3 add stars.
    Reviews {
        #[arg(long, env = "REVIEWS_VERSION", default_value = "v1")]
        version: ReviewsVersion,
        #[arg(long, env = "RATINGS_URL", default_value = "http://ratings:9080")]
        ratings_url: BaseUrl,
    },
    /// The number of stars each reader gave.
    Ratings,
    /// A WebSocket and a gRPC stream that send back what they get; no part of the page.
    Streams,
    /// Calls other services all the time and counts what came of it; no part of the page.
    Caller(Targets),
}

#[derive(ClapArgs, Clone)]
pub struct BackendUrls {
    #[arg(long = "details-url", env = "DETAILS_URL", default_value = "http://details:9080")]
    pub details: BaseUrl,
    #[arg(long = "reviews-url", env = "REVIEWS_URL", default_value = "http://reviews:9080")]
    pub reviews: BaseUrl,
    #[arg(long = "ratings-url", env = "RATINGS_URL", default_value = "http://ratings:9080")]
    pub ratings: BaseUrl,
}

/// v1 shows no stars, v2 black ones, v3 red ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ReviewsVersion {
    V1,
    V2,
    V3,
}

impl ReviewsVersion {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
            Self::V3 => "v3",
        }
    }
}

impl Service {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Productpage(_) => "productpage",
            Self::Details => "details",
            Self::Reviews { .. } => "reviews",
            Self::Ratings => "ratings",
            Self::Streams => "streams",
            Self::Caller(_) => "caller",
        }
    }

    pub fn version(&self) -> &'static str {
        match self {
            Self::Reviews { version, .. } => version.as_str(),
            Self::Productpage(_) | Self::Details | Self::Ratings | Self::Streams | Self::Caller(_) => "v1",
        }
    }
}

/// `http://host[:port][/prefix]` without the last slash; checked at start rather than at the first request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseUrl(String);

impl BaseUrl {
    pub fn join(&self, path: &str) -> String {
        format!("{}{path}", self.0)
    }
}

impl FromStr for BaseUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let uri: Uri = text.parse().map_err(|error| format!("not a URL: {error}"))?;
        // Encryption between the services is the mesh's business, so there is no TLS stack in here.
        if uri.scheme_str() != Some("http") {
            return Err("must start with http://".into());
        }
        if uri.query().is_some() {
            return Err("must not have a query".into());
        }
        Ok(Self(text.trim_end_matches('/').to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_url_loses_its_last_slash() {
        let url: BaseUrl = "http://reviews:9080/".parse().unwrap();
        assert_eq!(url.join("/reviews/0"), "http://reviews:9080/reviews/0");
    }

    #[test]
    fn only_plain_http_urls_are_taken() {
        for bad in ["https://reviews", "reviews:9080", "/reviews", "http://reviews/?a=b", ""] {
            assert!(bad.parse::<BaseUrl>().is_err(), "{bad}");
        }
    }

    #[test]
    fn reviews_takes_its_version_as_a_flag() {
        let args = Args::try_parse_from(["bookinfo", "reviews", "--version", "v3", "--listen", "[::]:8080"])
            .unwrap();
        assert_eq!((args.service.name(), args.service.version()), ("reviews", "v3"));
        assert_eq!(args.listen.port(), 8080);
    }

    #[test]
    fn a_caller_takes_several_targets_and_none_is_refused() {
        assert!(Args::try_parse_from(["bookinfo", "caller", "--url", "http://a:1/x,http://b:2/"]).is_ok());
        for bad in [&["caller"][..], &["caller", "--url", "http://a/", "--rate", "0"]] {
            assert!(Args::try_parse_from(["bookinfo"].iter().chain(bad)).is_err(), "{bad:?}");
        }
    }
}
