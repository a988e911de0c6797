use super::*;

#[test]
fn long_text_hangs_below_its_beginning_and_stays_within_the_width() {
    let mut page = Page::default();
    page.field("waiting", &"word ".repeat(60));
    let text = page.done();
    assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
    assert!(text.lines().skip(1).all(|line| line.starts_with(&" ".repeat(2 + NAME_WIDTH))), "{text}");
}

#[test]
fn a_word_longer_than_a_line_is_not_cut() {
    let mut page = Page::default();
    page.field("image", &"x".repeat(150));
    assert!(page.done().contains(&"x".repeat(150)));
}

#[test]
fn go_durations_are_read_and_bad_ones_are_not() {
    assert_eq!(go_seconds("1h30m"), Some(5400));
    assert_eq!(go_seconds("0s"), Some(0));
    for bad in ["5", "m", "5d", "1h-3m"] {
        assert_eq!(go_seconds(bad), None, "{bad}");
    }
}

#[test]
fn spans_have_at_most_two_units() {
    let cases = [(45, "45s"), (60, "1m"), (370, "6m10s"), (5400, "1h30m"), (7200, "2h"), (1_036_900, "12d")];
    for (seconds, text) in cases {
        assert_eq!(span(seconds), text);
    }
    assert_eq!(count(1_204_000, "request"), "1,204,000 requests");
    assert_eq!(count(1, "request"), "1 request");
}

#[test]
fn a_reader_that_is_gone_is_told_and_other_failures_are_errors() {
    struct Failing(ErrorKind);
    impl Write for Failing {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(self.0.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    assert!(write(&mut Vec::new(), "text").unwrap());
    assert!(!write(&mut Failing(ErrorKind::BrokenPipe), "text").unwrap());
    assert!(write(&mut Failing(ErrorKind::StorageFull), "text").is_err());
}
