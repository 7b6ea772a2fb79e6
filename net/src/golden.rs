//! Messages as bytes that lie in the repository, a file for each protocol: a line for each message, its name and its bytes
//! in hex.
//!
//! Whoever changes a message sees it here. `PLANARIA_GOLDEN=write` writes the files anew, which is right as long as no release
//! has spoken the old bytes. A message of the same name as one before it has its number behind the name.

use std::fmt::{Debug, Write};
use std::path::Path;

use bytes::Bytes;
use planaria_types::{Epoch, History, HistoryEntry, HistoryHash, Position, Uid};

/// An enum of which every variant has a line.
pub(crate) trait Variants {
    /// The names of all variants, in their order.
    const NAMES: &'static [&'static str];
    /// The name of this one.
    fn variant(&self) -> &'static str;
}

/// Names the variants of enums. With one that has no name here nothing compiles, and one that has a name needs a line.
macro_rules! variants {
    ($($of:ident { $($variant:ident),+ $(,)? })+) => { $(
        impl $crate::golden::Variants for $of {
            const NAMES: &'static [&'static str] = &[$(stringify!($variant)),+];

            fn variant(&self) -> &'static str {
                match self {
                    $(Self::$variant { .. } => stringify!($variant),)+
                }
            }
        }
    )+ };
}

pub(crate) use variants;

/// How a message becomes bytes.
pub(crate) type Encode<T> = fn(&T) -> Bytes;
/// How bytes become a message.
pub(crate) type Decode<T> = fn(&Bytes) -> T;

/// A message, its name, and what must hold of the bytes that lie in the repository.
pub(crate) struct Line {
    name: String,
    bytes: Bytes,
    check: Box<dyn Fn(&Bytes)>,
}

impl Line {
    pub(crate) fn new<T>(name: &str, message: T, encode: Encode<T>, decode: Decode<T>) -> Self
    where
        T: PartialEq + Debug + 'static,
    {
        let bytes = encode(&message);
        let check = move |bytes: &Bytes| {
            let read = decode(bytes);
            assert_eq!(read, message);
            assert_eq!(encode(&read), *bytes);
        };
        Self { name: name.to_owned(), bytes, check: Box::new(check) }
    }
}

/// A line for each message, in the order of the variants. The names begin with `prefix`.
pub(crate) fn each<T>(prefix: &str, mut messages: Vec<T>, encode: Encode<T>, decode: Decode<T>) -> Vec<Line>
where
    T: Variants + PartialEq + Debug + 'static,
{
    for name in T::NAMES {
        let has_line = messages.iter().any(|message| message.variant() == *name);
        assert!(has_line, "{prefix}{name} has no line: add a message of that kind");
    }
    messages.sort_by_key(|message| T::NAMES.iter().position(|name| *name == message.variant()));
    let line = |message: T| Line::new(&format!("{prefix}{}", message.variant()), message, encode, decode);
    messages.into_iter().map(line).collect()
}

/// Messages are written as they are in a file of `golden`, and what is there is read as them.
pub(crate) fn hold(file: &str, lines: &[Line]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(file);
    let written = text_of(lines);
    if std::env::var_os("PLANARIA_GOLDEN").is_some_and(|wish| wish == "write") {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &written).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap();
    for (now, then) in written.lines().zip(golden.lines()) {
        assert_eq!(now, then, "{}", path.display());
    }
    assert_eq!(written.lines().count(), golden.lines().count(), "{}", path.display());
    for (line, then) in lines.iter().zip(golden.lines()) {
        (line.check)(&bytes_of(then));
    }
}

fn text_of(lines: &[Line]) -> String {
    let mut text = String::new();
    for (at, line) in lines.iter().enumerate() {
        text.push_str(&line.name);
        let before = lines[..at].iter().filter(|other| other.name == line.name).count();
        if before > 0 {
            write!(text, ".{}", before + 1).unwrap();
        }
        text.push(' ');
        line.bytes.iter().for_each(|byte| write!(text, "{byte:02x}").unwrap());
        text.push('\n');
    }
    text
}

fn bytes_of(line: &str) -> Bytes {
    let hex = line.split_once(' ').unwrap().1.as_bytes();
    let digits = hex.chunks(2).map(|digits| std::str::from_utf8(digits).unwrap());
    digits.map(|digits| u8::from_str_radix(digits, 16).unwrap()).collect()
}

// Values that messages of several protocols have in them.

pub(crate) fn text(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

pub(crate) fn epoch(incarnation: u32) -> Epoch {
    Epoch { term: 2, incarnation: incarnation.into(), nonce: 0x1122_3344_5566_7788 }
}

pub(crate) fn entry(incarnation: u32) -> HistoryEntry {
    HistoryEntry { epoch: epoch(incarnation), inherited: Uid::new(0x0102_0304), hash: HistoryHash(0x09_0203) }
}

pub(crate) fn history() -> History {
    let mut history = History::default();
    let first = HistoryEntry { epoch: epoch(1), inherited: Uid::ZERO, hash: HistoryHash::default() };
    history.push(first).unwrap();
    history.push(entry(3)).unwrap();
    history
}

pub(crate) fn position() -> Position {
    Position { epoch: epoch(3), uid: Uid::new(0x0a0b_0c0d) }
}
