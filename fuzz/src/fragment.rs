//! Pieces of lines that are larger than a packet.

use hobnob_proto::{
    limits,
    time::{Duration, Time},
    wire::{
        Frame,
        fragment::{Assembler, LINE_START, split},
        frame::{Fragment, FragmentOf},
    },
};

use super::script::Script;

/// How many steps of a script are taken: more find nothing new.
const STEPS_MAX: usize = 256;

/// Takes pieces that the script makes up, and those of a line in the order that it says. A line comes out of its own
/// pieces alone, as it was.
///
/// # Panics
/// If not.
pub fn run(data: &[u8]) {
    let mut script = Script(data);
    let (mut assembler, mut now) = (Assembler::default(), Time::ZERO);
    let mut pieces = Vec::new();
    for _ in 0..STEPS_MAX {
        if script.is_over() {
            break;
        }
        let piece = match script.byte() % 4 {
            0 => {
                let line = String::from_utf8_lossy(script.bytes()).repeat(1 + usize::from(script.byte() % 32));
                pieces = pieces_of(u64::from(script.byte() % 8), line.trim_end_matches('\n'));
                continue;
            }
            1 => {
                now = now + Duration::from_millis(u64::from(script.word()));
                continue;
            }
            2 => pieces.get(usize::from(script.byte()) % pieces.len().max(1)).cloned(),
            _ => match Frame::from_line(script.bytes()) {
                Some(Frame::Fragment(fragment)) => Some(fragment),
                _ => None,
            },
        };
        let Some(piece) = piece else { continue };
        let (len, end) = (piece.len as usize, piece.at as usize + piece.piece.len());
        match assembler.take(piece, now) {
            Ok(Some(line)) => assert!(line.len() == len && len <= limits::FRAGMENTED_LINE_BYTES_MAX),
            Ok(None) => assert!(end <= len && !assembler.is_empty()),
            Err(_) => {}
        }
    }
    // In a new session, the last line comes out whole, whatever order its pieces are in.
    let mut assembler = Assembler::default();
    let whole: Vec<_> = pieces.iter().rev().filter_map(|piece| assembler.take(piece.clone(), now).ok()?).collect();
    assert_eq!(whole.len(), usize::from(!pieces.is_empty()));
    assert!(assembler.is_empty());
}

/// The pieces of a line, each as it is read from its own line.
fn pieces_of(seq: u64, line: &str) -> Vec<Fragment> {
    if line.len() > limits::FRAGMENTED_LINE_BYTES_MAX {
        return Vec::new();
    }
    let of = FragmentOf::Post("tea".parse().expect("this is a name"), seq);
    let read = |piece: &String| {
        assert!(piece.as_bytes().starts_with(LINE_START) && piece.len() <= limits::FRAME_BYTES_MAX);
        let Some(Frame::Fragment(fragment)) = Frame::from_line(piece.as_bytes()) else { panic!("{piece} is no piece") };
        fragment
    };
    let pieces: Vec<_> = split(of, line).iter().map(read).collect();
    assert_eq!(pieces.iter().map(|piece| piece.piece.as_str()).collect::<String>(), line);
    pieces
}
