//! The HTML. Pure: what the backends said goes in, text comes out. Everything foreign passes `escape`.

use std::fmt::{self, Write as _};

use crate::client::CallError;
use crate::model::{Color, Details, Pod, Product, Rating, Review, Reviews};

const STYLE: &str = include_str!("page.css");
const MOST_STARS: u8 = 5;

/// All that the product page shows.
pub struct View<'a> {
    pub me: &'a Pod,
    pub user: Option<&'a str>,
    pub product: &'a Product,
    pub details: &'a Result<Details, CallError>,
    pub reviews: &'a Result<Reviews, CallError>,
}

pub fn home(me: &Pod, product: &Product) -> String {
    let title = escape(&product.title);
    let main = format!(
        "<section class=\"intro\"><h1>Four services, one page</h1>\
         <p>Bookinfo is a small shop with one book, <em>{title}</em>. The page asks <b>details</b> and \
         <b>reviews</b>, and newer reviews ask <b>ratings</b>; every answer says which pod gave it, so you \
         can watch requests move while you change a route.</p>\
         <p class=\"actions\"><a class=\"button\" href=\"/productpage?u=normal\">Open as a normal user</a>\
         <a class=\"button quiet\" href=\"/productpage?u=test\">Open as user test</a></p>\
         <p class=\"note\">As JSON: <a href=\"/api/v1/products\">products</a> · \
         <a href=\"/api/v1/products/0\">details</a> · <a href=\"/api/v1/products/0/reviews\">reviews</a> · \
         <a href=\"/api/v1/products/0/ratings\">ratings</a></p></section>\
         <section><h2>Who answered</h2><div class=\"path\">{}</div></section>",
        pod(me)
    );
    layout("Bookinfo", "", &main)
}

pub fn product(view: &View<'_>) -> String {
    let account = match view.user {
        Some(user) => format!(
            "<span class=\"user\">Signed in as <b>{}</b></span><a class=\"button quiet\" href=\"/logout\">Sign out</a>",
            escape(user)
        ),
        None => "<form action=\"/login\"><input name=\"username\" placeholder=\"Name, say jason\" \
                 aria-label=\"User name\" autocomplete=\"off\" required maxlength=\"40\">\
                 <button class=\"button\">Sign in</button></form>"
            .to_owned(),
    };
    let title = escape(&view.product.title);
    let author = view.details.as_ref().map(|d| d.author.as_str()).unwrap_or_default();
    let main = format!(
        "<section class=\"book\"><div class=\"cover\" aria-hidden=\"true\"><b>{title}</b><i>{author}</i></div>\
         <div><h1>{title}</h1><p class=\"lead\">{description}</p>{details}</div></section>\
         <section><h2>What readers say</h2>{reviews}</section>\
         <section><h2>Who answered</h2>{path}</section>",
        author = escape(author),
        description = escape(&view.product.description),
        details = details(view.details),
        reviews = reviews(view.reviews),
        path = path(view),
    );
    layout(&view.product.title, &account, &main)
}

fn layout(title: &str, account: &str, main: &str) -> String {
    // The empty icon keeps the browser from asking the gateway for /favicon.ico.
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{}</title>\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <link rel=\"icon\" href=\"data:,\"><style>{STYLE}</style></head>\n\
         <body><header><a class=\"brand\" href=\"/\">Bookinfo</a><div class=\"account\">{account}</div></header>\n\
         <main>{main}</main>\n<footer>A sample application of Meshwright</footer></body></html>\n",
        escape(title)
    )
}

fn details(answer: &Result<Details, CallError>) -> String {
    match answer {
        Ok(d) => format!(
            "<dl><div><dt>Author</dt><dd>{}</dd></div><div><dt>First published</dt><dd>{}</dd></div>\
             <div><dt>Publisher</dt><dd>{}</dd></div><div><dt>Written in</dt><dd>{}</dd></div>\
             <div><dt>Chapters</dt><dd>{}</dd></div></dl>",
            escape(&d.author),
            d.year,
            escape(&d.publisher),
            escape(&d.language),
            d.chapters
        ),
        Err(error) => error_box("The details of this book are missing.", error),
    }
}

fn reviews(answer: &Result<Reviews, CallError>) -> String {
    let reviews = match answer {
        Ok(reviews) => reviews,
        Err(error) => return error_box("The reviews of this book are missing.", error),
    };
    let mut html = String::from("<div class=\"reviews\">");
    for one in &reviews.reviews {
        html += &review(one);
    }
    html += "</div>";
    match &reviews.rating_error {
        Some(why) => html += &error_box("The reviews are shown without their stars.", why),
        None if reviews.rated_by.is_none() => {
            html += "<p class=\"note\">This version of reviews does not show stars.</p>";
        }
        None => {}
    }
    html
}

fn review(review: &Review) -> String {
    format!(
        "<figure><blockquote>{}</blockquote><figcaption><span>{}</span>{}</figcaption></figure>",
        escape(&review.text),
        escape(&review.reviewer),
        review.rating.as_ref().map(stars).unwrap_or_default()
    )
}

fn stars(rating: &Rating) -> String {
    let full = rating.stars.min(MOST_STARS);
    let class = match rating.color {
        Color::Black => "black",
        Color::Red => "red",
    };
    format!(
        "<span class=\"stars {class}\" role=\"img\" aria-label=\"{full} of {MOST_STARS} stars\">{}<s>{}</s></span>",
        "★".repeat(full.into()),
        "★".repeat((MOST_STARS - full).into())
    )
}

/// The call tree of this very request.
fn path(view: &View<'_>) -> String {
    let details = view.details.as_ref().map_or_else(failed, |d| pod(&d.pod));
    let reviews = view.reviews.as_ref().map_or_else(failed, |r| {
        let arrow = "<span class=\"arrow\">→</span>";
        match (&r.rated_by, &r.rating_error) {
            (Some(ratings), _) => format!("{}{arrow}{}", pod(&r.pod), pod(ratings)),
            (None, Some(_)) => format!("{}{arrow}{}", pod(&r.pod), no_answer("ratings")),
            (None, None) => pod(&r.pod),
        }
    });
    format!(
        "<div class=\"path\">{}<span class=\"arrow\">→</span><ul><li>{details}</li><li>{reviews}</li></ul></div>",
        pod(view.me)
    )
}

fn pod(pod: &Pod) -> String {
    format!(
        "<span class=\"pod {version}\"><b>{}</b><em>{version}</em><code>{}</code></span>",
        escape(&pod.service),
        escape(&pod.podname),
        version = escape(&pod.version),
    )
}

fn failed(error: &CallError) -> String {
    no_answer(error.service)
}

fn no_answer(service: &str) -> String {
    format!("<span class=\"pod failed\"><b>{}</b><code>no answer</code></span>", escape(service))
}

fn error_box(what: &str, why: impl fmt::Display) -> String {
    let why = escape(&why.to_string());
    format!("<div class=\"error\" role=\"alert\"><b>{what}</b><span>{why}</span></div>")
}

/// Makes text safe in element content and in quoted attributes.
fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' | '<' | '>' | '"' | '\'' => {
                // Writing to a String cannot fail.
                let _ = write!(safe, "&#{};", u32::from(c));
            }
            _ => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests;
