//! Text of at most 100 columns, and the same data as JSON or YAML.

use std::io::{ErrorKind, Write};

use k8s_openapi::jiff::Timestamp;
use serde::Serialize;

use crate::args::Format;

#[cfg(test)]
mod tests;

const WIDTH: usize = 100;
const NAME_WIDTH: usize = 14;

/// In the form that was asked for.
pub fn show<T: Serialize>(
    format: Format,
    view: &T,
    text: impl FnOnce(&T) -> String,
) -> anyhow::Result<String> {
    Ok(match format {
        Format::Text => text(view),
        Format::Json => serde_json::to_string_pretty(view)? + "\n",
        Format::Yaml => serde_yaml_ng::to_string(view)?,
    })
}

/// To standard output. False where nobody reads it any more: a reader that has seen enough, such as `head`, is no error.
pub fn emit(text: &str) -> anyhow::Result<bool> {
    write(&mut std::io::stdout().lock(), text)
}

fn write(out: &mut impl Write, text: &str) -> anyhow::Result<bool> {
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Text that is being put together.
#[derive(Debug, Default)]
pub struct Page(String);

impl Page {
    /// The text.
    pub fn done(self) -> String {
        self.0
    }

    /// A line as it is: a command must stay one line to be copied.
    pub fn raw(&mut self, text: impl AsRef<str>) {
        self.0.push_str(text.as_ref().trim_end());
        self.0.push('\n');
    }

    /// An empty line and a heading.
    pub fn heading(&mut self, text: &str) {
        self.raw("");
        self.raw(text);
    }

    /// `first`, then `text` in lines that begin below its beginning.
    pub fn hang(&mut self, first: &str, text: &str) {
        let indent = first.chars().count();
        let (mut line, mut used) = (first.to_owned(), indent);
        for word in text.split_whitespace() {
            let length = word.chars().count();
            if used > indent && used + 1 + length > WIDTH {
                self.raw(&line);
                (line, used) = (" ".repeat(indent), indent);
            }
            if used > indent {
                line.push(' ');
                used += 1;
            }
            line.push_str(word);
            used += length;
        }
        self.raw(&line);
    }

    /// A name and what it is.
    pub fn field(&mut self, name: &str, text: &str) {
        self.hang(&format!("  {name:NAME_WIDTH$}"), text);
    }

    /// Columns, of which the last one may be long.
    pub fn table(&mut self, rows: &[Vec<String>]) {
        let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
        let width =
            |column| rows.iter().filter_map(|r| r.get(column)).map(|c: &String| c.chars().count()).max();
        let widths: Vec<usize> = (0..columns).map(|c| width(c).unwrap_or(0)).collect();
        for row in rows {
            let Some((last, head)) = row.split_last() else { continue };
            let cells = head.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}  "));
            self.hang(&format!("  {}", cells.collect::<String>()), last);
        }
    }
}

/// Seconds of a Go duration such as `1h30m`.
pub fn go_seconds(text: &str) -> Option<i64> {
    let (mut seconds, mut number) = (0i64, None::<i64>);
    for c in text.chars() {
        let unit = match (c, c.to_digit(10)) {
            (_, Some(digit)) => {
                number = Some(number.unwrap_or(0).checked_mul(10)?.checked_add(digit.into())?);
                continue;
            }
            ('h', _) => 3600,
            ('m', _) => 60,
            ('s', _) => 1,
            _ => return None,
        };
        seconds = seconds.checked_add(number.take()?.checked_mul(unit)?)?;
    }
    number.is_none().then_some(seconds)
}

/// A time that a person reads at a glance: `45s`, `6m10s`, `1h30m`, `12d`.
pub fn span(seconds: i64) -> String {
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match seconds {
        172_800.. => format!("{}d", seconds / 86_400),
        3600.. if minutes == 0 => format!("{hours}h"),
        3600.. => format!("{hours}h{minutes}m"),
        60.. if rest == 0 => format!("{minutes}m"),
        60.. => format!("{minutes}m{rest}s"),
        _ => format!("{}s", seconds.max(0)),
    }
}

/// Seconds from one moment to another.
pub fn between(from: Timestamp, to: Timestamp) -> i64 {
    to.as_second() - from.as_second()
}

/// The moment, and how far away it is.
pub fn when(moment: Timestamp, now: Timestamp) -> String {
    let away = between(now, moment);
    let relative = if away > 0 { format!("in {}", span(away)) } else { format!("{} ago", span(-away)) };
    format!("{} ({relative})", clock(moment))
}

/// The moment in UTC.
pub fn clock(moment: Timestamp) -> String {
    moment.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// `1 request`, `1,204 requests`.
pub fn count(number: i64, one: &str) -> String {
    format!("{} {one}{}", grouped(number), if number == 1 { "" } else { "s" })
}

/// `1,204`.
pub fn grouped(number: i64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(c);
    }
    grouped
}
