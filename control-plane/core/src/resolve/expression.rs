//! A check of regular expressions before they reach Envoy. One that RE2 refuses would make Envoy refuse the
//! whole RouteConfiguration, other people's routes included. So this accepts a subset of RE2 that is certain
//! to compile, and refuses the rest.

use std::iter::Peekable;
use std::str::Chars;

/// RE2's default limit for counted repetition.
const MAX_REPEAT: u32 = 1000;
/// RE2 limits the memory of a program; nested repetition can multiply, long text adds up.
const MAX_LENGTH: usize = 1024;

/// Whether an expression is in the accepted subset.
pub(crate) fn is_safe(expression: &str) -> bool {
    // Envoy refuses the empty expression by itself.
    !expression.is_empty() && expression.len() <= MAX_LENGTH && check(expression).is_some()
}

fn check(expression: &str) -> Option<()> {
    let mut chars = expression.chars().peekable();
    let mut depth = 0_u32;
    let mut repeats = 0_u32;
    // Whether the last item can be repeated.
    let mut atom = false;
    while let Some(c) = chars.next() {
        match c {
            '\\' => atom = escape(chars.next()?)?,
            '[' => {
                class(&mut chars)?;
                atom = true;
            }
            '(' => {
                depth += 1;
                if chars.peek() == Some(&'?') {
                    chars.next();
                    (chars.next() == Some(':')).then_some(())?;
                }
                atom = false;
            }
            ')' => {
                depth = depth.checked_sub(1)?;
                atom = true;
            }
            '*' | '+' | '?' | '{' => {
                atom.then_some(())?;
                if c == '{' {
                    // One counted repetition is enough; nested ones multiply into RE2's memory limit.
                    repeats += 1;
                    (repeats == 1 && counted(&mut chars)).then_some(())?;
                }
                chars.next_if_eq(&'?');
                atom = false;
            }
            '|' | '^' | '$' => atom = false,
            ']' | '}' => return None,
            _ => atom = true,
        }
    }
    (depth == 0).then_some(())
}

/// Whether the escape can be repeated; None for one that RE2 may not know.
fn escape(c: char) -> Option<bool> {
    match c {
        'd' | 'D' | 's' | 'S' | 'w' | 'W' | 'n' | 'r' | 't' | 'f' | 'v' => Some(true),
        'b' | 'B' | 'A' | 'z' => Some(false),
        c if c.is_ascii_punctuation() => Some(true),
        _ => None,
    }
}

fn class(chars: &mut Peekable<Chars<'_>>) -> Option<()> {
    chars.next_if_eq(&'^');
    let mut first = true;
    loop {
        let mut start = chars.next()?;
        let mut single = true;
        match start {
            ']' if !first => return Some(()),
            // `[]a]` and `[[:alpha:]]` are legal, but who writes them does not need them.
            ']' | '[' => return None,
            '\\' => {
                start = chars.next()?;
                single = !start.is_ascii_alphanumeric();
                escape(start)?;
            }
            _ => {}
        }
        first = false;
        if chars.peek() != Some(&'-') {
            continue;
        }
        chars.next();
        if chars.peek() == Some(&']') {
            continue;
        }
        let end = chars.next()?;
        (single && end != '\\' && end != '[' && start <= end).then_some(())?;
    }
}

fn counted(chars: &mut Peekable<Chars<'_>>) -> bool {
    let text: String = chars.by_ref().take_while(|c| *c != '}').collect();
    let (low, high) = text.split_once(',').unwrap_or((&text, &text));
    let Ok(low) = low.parse::<u32>() else { return false };
    let high = if high.is_empty() { low } else { high.parse().unwrap_or(u32::MAX) };
    low <= high && high <= MAX_REPEAT
}

#[cfg(test)]
mod tests {
    use super::is_safe;

    #[test]
    fn common_expressions_pass() {
        for good in [
            "/a/.*",
            "^(?:a|b)+$",
            r"\d{1,3}",
            "[a-zA-Z0-9_-]+",
            r"(foo|bar)\.example\.com",
            "a+?",
            "[^/]+",
            r"[\w-]+",
        ] {
            assert!(is_safe(good), "{good}");
        }
    }

    #[test]
    fn what_re2_may_refuse_is_refused() {
        for bad in [
            "",
            "(",
            ")",
            "[",
            "[]",
            "a**",
            "*a",
            r"\1",
            "(?=a)",
            "(?<n>a)",
            "a{2,1}",
            "a{1001}",
            "(a{9}){9}",
            "[z-a]",
            r"\",
            "a{x}",
        ] {
            assert!(!is_safe(bad), "{bad}");
        }
    }
}
