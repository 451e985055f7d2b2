//! A line of a session.

use hobnob_proto::wire::Frame;

/// What is read from a line, and written again, is read as the same, and is one line.
///
/// # Panics
/// If not.
pub fn run(data: &[u8]) {
    let Some(frame) = Frame::from_line(data) else { return };
    let line = frame.to_line();
    assert_eq!(line.find('\n'), Some(line.len() - 1), "one line: {line:?}");
    let again = Frame::from_line(line.as_bytes()).expect("what we write can be read");
    if matches!(frame, Frame::Answer { .. }) {
        // Holds any JSON: the last digit of a number with 17 digits may be another one.
        return assert!(matches!(again, Frame::Answer { .. }));
    }
    assert_eq!(again.to_line(), line);
    assert_eq!(format!("{again:?}"), format!("{frame:?}"));
}
