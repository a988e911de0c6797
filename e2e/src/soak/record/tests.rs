//! Resumption.

use super::*;
use crate::soak::table::ROWS;

fn passed(row: &Row, repetition: u32, inputs: &str) -> Attempt {
    let figures = vec![Figure::count("failed", 1, "requests")];
    Attempt { row: row.name.to_owned(), inputs: inputs.to_owned(), repetition, figures, error: None }
}

fn failed(row: &Row, repetition: u32, inputs: &str) -> Attempt {
    Attempt { error: Some("no".to_owned()), figures: Vec::new(), ..passed(row, repetition, inputs) }
}

#[test]
fn a_session_goes_on_where_the_last_one_stopped() {
    let row = &ROWS[0];
    let attempts = [passed(row, 0, "x"), failed(row, 1, "x"), passed(row, 1, "x"), passed(&ROWS[1], 0, "x")];
    let standing = standing(&attempts, row, "x");
    assert_eq!((standing.next, standing.failed_attempts, standing.figures.len()), (2, 1, 2));
}

#[test]
fn changed_files_start_a_row_again() {
    let row = &ROWS[0];
    let attempts = [passed(row, 0, "old"), passed(row, 1, "old"), passed(row, 0, "new")];
    assert_eq!(standing(&attempts, row, "new").next, 1);
}

#[test]
fn a_repetition_counts_once_and_only_in_its_order() {
    let row = &ROWS[0];
    let attempts = [passed(row, 1, "x"), passed(row, 0, "x"), passed(row, 0, "x")];
    assert_eq!(standing(&attempts, row, "x").next, 1);
}

#[test]
fn a_record_counts_while_its_files_are_the_same_and_its_repetitions_enough() {
    let row = &ROWS[0];
    let standing = Standing { next: row.needed, figures: Vec::new(), failed_attempts: 0 };
    let record = finished(row, &standing, ("c".to_owned(), false), "d".to_owned(), "x");
    assert!(counting(std::slice::from_ref(&record), row, "x").is_some());
    assert!(counting(std::slice::from_ref(&record), row, "y").is_none());
    assert!(counting(std::slice::from_ref(&record), &ROWS[1], "x").is_none());
    let short = Record { repetitions: row.needed - 1, ..record };
    assert!(counting(&[short], row, "x").is_none());
}

#[test]
fn lines_survive_a_crash_and_are_forgotten_by_row() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("soak/progress.jsonl");
    assert_eq!(load::<Attempt>(&path).unwrap(), []);
    append(&path, &passed(&ROWS[0], 0, "x")).unwrap();
    append(&path, &failed(&ROWS[1], 0, "x")).unwrap();
    let mut text = std::fs::read_to_string(&path).unwrap();
    text.push_str("{\"row\":\"cut");
    std::fs::write(&path, text).unwrap();
    assert_eq!(load::<Attempt>(&path).unwrap().len(), 2);
    forget(&path, &ROWS[0]).unwrap();
    assert_eq!(load::<Attempt>(&path).unwrap(), [failed(&ROWS[1], 0, "x")]);
}
