use planaria_types::Uid;

/// What a scan over versions shows: of each key the newest version at or below a cut, if it is a put.
///
/// It remembers the key that was decided last, shown or not, so that the older versions of it are passed over.
#[derive(Debug)]
pub(crate) struct Newest {
    /// The cut.
    pub(crate) at: Uid,
    decided: Vec<u8>,
    has_decided: bool,
}

impl Newest {
    /// Nothing is decided yet.
    pub(crate) fn new(at: Uid) -> Self {
        Self { at, decided: Vec::new(), has_decided: false }
    }

    /// Whether `key` was the last to be decided.
    #[inline]
    pub(crate) fn is_decided(&self, key: &[u8]) -> bool {
        self.has_decided && key == self.decided.as_slice()
    }

    /// Passes over the older versions of `key` from now on.
    #[inline]
    pub(crate) fn decide(&mut self, key: &[u8]) {
        self.decided.clear();
        self.decided.extend_from_slice(key);
        self.has_decided = true;
    }
}
