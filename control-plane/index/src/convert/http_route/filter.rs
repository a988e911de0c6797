//! Filters of a rule and of a backend. The API has the same shape twice, as two families of types, hence the macro.

/// The conversion, for the types that the module around it calls `Filter`, `Type` and so on.
macro_rules! filters {
    () => {
        use meshwright_core::model::{
            BackendRef, CorsFilter, HeaderModifier, HttpRouteFilter, PathModifier, RequestMirror,
            RequestRedirect, UrlRewrite,
        };

        /// A filter whose settings do not fit its type is unsupported: applying nothing in its place could open what it closes.
        pub(in super::super) fn filter(filter: &Filter) -> HttpRouteFilter {
            let converted = match filter.r#type {
                Type::RequestHeaderModifier => filter
                    .request_header_modifier
                    .as_ref()
                    .map(|set| HttpRouteFilter::RequestHeaderModifier(headers!(set))),
                Type::ResponseHeaderModifier => filter
                    .response_header_modifier
                    .as_ref()
                    .map(|set| HttpRouteFilter::ResponseHeaderModifier(headers!(set))),
                Type::RequestMirror => filter.request_mirror.as_ref().map(mirror),
                Type::RequestRedirect => filter.request_redirect.as_ref().map(redirect),
                Type::UrlRewrite => filter.url_rewrite.as_ref().map(rewrite),
                Type::Cors => filter.cors.as_ref().map(cors),
                Type::ExtensionRef | Type::ExternalAuth => None,
            };
            converted.unwrap_or_else(|| HttpRouteFilter::Unsupported(format!("{:?}", filter.r#type)))
        }

        fn redirect(redirect: &Redirect) -> HttpRouteFilter {
            HttpRouteFilter::RequestRedirect(RequestRedirect {
                scheme: redirect.scheme.as_ref().map(|scheme| format!("{scheme:?}").to_ascii_lowercase()),
                hostname: redirect.hostname.clone(),
                path: redirect.path.as_ref().map(|path| path_modifier!(path, RedirectPathType)),
                port: redirect.port.map(crate::convert::port),
                status_code: redirect.status_code.and_then(|code| u16::try_from(code).ok()),
            })
        }

        fn rewrite(rewrite: &Rewrite) -> HttpRouteFilter {
            HttpRouteFilter::UrlRewrite(UrlRewrite {
                hostname: rewrite.hostname.clone(),
                path: rewrite.path.as_ref().map(|path| path_modifier!(path, RewritePathType)),
            })
        }

        fn mirror(mirror: &Mirror) -> HttpRouteFilter {
            mirror!(mirror)
        }

        fn cors(cors: &Cors) -> HttpRouteFilter {
            HttpRouteFilter::Cors(CorsFilter {
                allow_origins: cors.allow_origins.clone().unwrap_or_default(),
                allow_credentials: cors.allow_credentials.unwrap_or(false),
                allow_methods: cors.allow_methods.clone().unwrap_or_default(),
                allow_headers: cors.allow_headers.clone().unwrap_or_default(),
                expose_headers: cors.expose_headers.clone().unwrap_or_default(),
                max_age: cors.max_age.and_then(|seconds| u32::try_from(seconds).ok()),
            })
        }
    };
}

macro_rules! mirror {
    ($mirror:expr) => {{
        let number = |value: i32| u32::try_from(value).unwrap_or(0);
        let fraction =
            $mirror.fraction.as_ref().map(|of| (number(of.numerator), number(of.denominator.unwrap_or(100))));
        HttpRouteFilter::RequestMirror(RequestMirror {
            backend_ref: BackendRef {
                group: $mirror.backend_ref.group.clone(),
                kind: $mirror.backend_ref.kind.clone(),
                namespace: $mirror.backend_ref.namespace.clone(),
                name: $mirror.backend_ref.name.clone(),
                port: $mirror.backend_ref.port.map(crate::convert::port),
            },
            fraction: fraction.or_else(|| $mirror.percent.map(|percent| (number(percent), 100))),
        })
    }};
}

macro_rules! headers {
    ($set:expr) => {
        HeaderModifier {
            set: $set.set.iter().flatten().map(|one| (one.name.clone(), one.value.clone())).collect(),
            add: $set.add.iter().flatten().map(|one| (one.name.clone(), one.value.clone())).collect(),
            remove: $set.remove.clone().unwrap_or_default(),
        }
    };
}

macro_rules! path_modifier {
    ($path:expr, $types:ident) => {
        match $path.r#type {
            $types::ReplaceFullPath => {
                PathModifier::ReplaceFullPath($path.replace_full_path.clone().unwrap_or_default())
            }
            $types::ReplacePrefixMatch => {
                PathModifier::ReplacePrefixMatch($path.replace_prefix_match.clone().unwrap_or_default())
            }
        }
    };
}

pub(in crate::convert) use {headers, mirror};

pub(super) mod rule {
    use meshwright_api::gateway::{
        HttpRouteRulesFilters as Filter, HttpRouteRulesFiltersCors as Cors,
        HttpRouteRulesFiltersRequestMirror as Mirror, HttpRouteRulesFiltersRequestRedirect as Redirect,
        HttpRouteRulesFiltersRequestRedirectPathType as RedirectPathType, HttpRouteRulesFiltersType as Type,
        HttpRouteRulesFiltersUrlRewrite as Rewrite,
        HttpRouteRulesFiltersUrlRewritePathType as RewritePathType,
    };
    filters!();
}

pub(super) mod backend {
    use meshwright_api::gateway::{
        HttpRouteRulesBackendRefsFilters as Filter, HttpRouteRulesBackendRefsFiltersCors as Cors,
        HttpRouteRulesBackendRefsFiltersRequestMirror as Mirror,
        HttpRouteRulesBackendRefsFiltersRequestRedirect as Redirect,
        HttpRouteRulesBackendRefsFiltersRequestRedirectPathType as RedirectPathType,
        HttpRouteRulesBackendRefsFiltersType as Type, HttpRouteRulesBackendRefsFiltersUrlRewrite as Rewrite,
        HttpRouteRulesBackendRefsFiltersUrlRewritePathType as RewritePathType,
    };
    filters!();
}
