//! A check of regular expressions before they reach Envoy. One that RE2 refuses would make Envoy refuse the
//! whole RouteConfiguration, other people's routes included. So this accepts a subset of RE2 that is certain
//! to compile, and refuses the rest.

use std::iter::Peekable;
use std::str::Chars;

/// A counted repetition is so many copies; RE2's own limit is 1000.
const MAX_REPEAT: u32 = 255;
/// Envoy compiles an expression for every route that has it.
const MAX_LENGTH: usize = 1024;
/// Instructions of RE2's program, as estimated here, which is from above. Envoy refuses a program beyond
/// `re2.max_program_size.error_level`, which the agent sets to 1000 or more.
const MAX_PROGRAM: usize = 500;
/// A character range beyond ASCII is a tree of byte ranges.
const WIDE: usize = 16;
/// So is the complement of a set, a smaller one: RE2 has a short form for everything beyond ASCII.
const COMPLEMENT: usize = 8;

/// Whether an expression is in the accepted subset.
pub(crate) fn is_safe(expression: &str) -> bool {
    // Envoy refuses the empty expression by itself.
    !expression.is_empty()
        && expression.len() <= MAX_LENGTH
        && !expression.contains(|c: char| c.is_ascii_control())
        && program_size(expression).is_some_and(|size| size <= MAX_PROGRAM)
}

/// About how many instructions RE2 needs at most; None outside of the subset.
fn program_size(expression: &str) -> Option<usize> {
    let mut chars = expression.chars().peekable();
    // Where each open group began.
    let mut groups: Vec<usize> = Vec::new();
    let mut size = 0_usize;
    let mut repeats = 0_u32;
    // Size of the last item, if it can be repeated.
    let mut atom = None;
    while let Some(c) = chars.next() {
        let cost = match c {
            '\\' => {
                let (cost, repeatable) = escape(chars.next()?)?;
                atom = repeatable.then_some(cost);
                cost
            }
            '[' => *atom.insert(class(&mut chars)?),
            '(' => {
                groups.push(size);
                if chars.peek() == Some(&'?') {
                    chars.next();
                    (chars.next() == Some(':')).then_some(())?;
                }
                atom = None;
                2
            }
            ')' => {
                atom = Some(size - groups.pop()?);
                0
            }
            '*' | '+' | '?' | '{' => {
                let repeated = atom.take()?;
                let mut cost = 2;
                if c == '{' {
                    // One counted repetition is enough; nested ones multiply into RE2's memory limit.
                    repeats += 1;
                    let copies = counted(&mut chars).filter(|_| repeats == 1)?;
                    // The one that is there already is among them; each may need a branch around it.
                    cost += copies * (repeated + 2);
                }
                chars.next_if_eq(&'?');
                cost
            }
            '|' | '^' | '$' => {
                atom = None;
                2
            }
            ']' | '}' => return None,
            '.' => *atom.insert(COMPLEMENT),
            _ => *atom.insert(c.len_utf8()),
        };
        size += cost;
    }
    groups.is_empty().then_some(size)
}

/// Size of an escape and whether it can be repeated; None for one that RE2 may not know.
fn escape(c: char) -> Option<(usize, bool)> {
    match c {
        'd' | 's' | 'w' | 'n' | 'r' | 't' | 'f' | 'v' => Some((8, true)),
        'D' | 'S' | 'W' => Some((COMPLEMENT, true)),
        'b' | 'B' | 'A' | 'z' => Some((2, false)),
        c if c.is_ascii_punctuation() => Some((1, true)),
        _ => None,
    }
}

/// Size of the class whose bracket was read.
fn class(chars: &mut Peekable<Chars<'_>>) -> Option<usize> {
    let mut size = if chars.next_if_eq(&'^').is_some() { COMPLEMENT } else { 1 };
    let mut first = true;
    loop {
        let mut start = chars.next()?;
        let mut single = true;
        let mut cost = 2;
        match start {
            ']' if !first => return Some(size),
            // `[]a]` and `[[:alpha:]]` are legal, but who writes them does not need them.
            ']' | '[' => return None,
            '\\' => {
                start = chars.next()?;
                single = !start.is_ascii_alphanumeric();
                // `\b` and its like are no characters.
                let (escaped, character) = escape(start)?;
                cost += character.then_some(escaped)?;
            }
            _ => {}
        }
        first = false;
        size += if start.is_ascii() { cost } else { WIDE };
        if chars.peek() != Some(&'-') {
            continue;
        }
        chars.next();
        if chars.peek() == Some(&']') {
            continue;
        }
        let end = chars.next()?;
        (single && end != '\\' && end != '[' && start <= end).then_some(())?;
        size += if end.is_ascii() { 0 } else { WIDE };
    }
}

/// How many copies a counted repetition asks for.
fn counted(chars: &mut Peekable<Chars<'_>>) -> Option<usize> {
    let text: String = chars.by_ref().take_while(|c| *c != '}').collect();
    let (low, high) = text.split_once(',').unwrap_or((&text, &text));
    let low = low.parse::<u32>().ok()?;
    let high = if high.is_empty() { low } else { high.parse().ok()? };
    (low <= high && high <= MAX_REPEAT).then(|| usize::try_from(high).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::{MAX_PROGRAM, is_safe, program_size};

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
            "[a-z0-9]{1,63}",
            "/users/[0-9a-f]{32}/.*",
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
            "a\0",
            r"[\b]",
        ] {
            assert!(!is_safe(bad), "{bad}");
        }
    }

    #[test]
    fn what_becomes_a_large_program_is_refused() {
        for bad in [
            ".{0,255}".to_owned(),
            "(abcdefghij){100}".to_owned(),
            "[^/]{200}".to_owned(),
            "(?:a|b|.){64}".to_owned(),
            "a".repeat(MAX_PROGRAM + 1),
            ".*".repeat(MAX_PROGRAM / 5),
            "(?:){255}".to_owned(),
            "ä".repeat(MAX_PROGRAM),
        ] {
            assert!(!is_safe(&bad), "{bad}");
        }
        assert!(is_safe(&"a".repeat(MAX_PROGRAM)));
        // Envoy is asked about these in `xds::envoy::tests::validate`.
        for good in [
            "[a-z0-9]{1,63}",
            "[^/]{25}",
            ".{25}",
            "[^/]{0,25}?",
            r"\W{25}",
            "(?:a|b|.){17}",
            "(?:[ä-ö]|.*){9}",
            "(?:(?:(?:a?b*|c+)*|d)*|e){15}",
            "(a|b|c|d|e|f|g|h|i|j|k|l|m|n|o|p)*(a|b|c|d|e|f|g|h|i|j|k|l|m|n|o|p)*(a|b|c|d|e|f|g|h|i|j|k|l|m|n|o|p)*",
            "a?b?c?d?e?f?g?h?i?j?k?l?m?n?o?p?q?r?s?t?u?v?w?x?y?z?a*b*c*d*e*f*g*h*i*j*k*l*m*n*o*p*q*r*s*t*u*v*w*x*y*z*a?b?c?d?e?f?g?h?i?j?k?l?m?n?o?p?q?r?s?t?u?v?w?x?y?z?a*b*c*d*e*f*g*h*i*j*k*l*m*n*o*p*q*r*s*t*u*v*w*x*y*z*",
            "(a{1,40})*[a-z0-9_-]|(?:x|y|[^a-z])+$",
        ] {
            assert!(is_safe(good), "{good}: {:?}", program_size(good));
        }
        assert!(program_size("(ab){10}") >= Some(20));
    }
}
