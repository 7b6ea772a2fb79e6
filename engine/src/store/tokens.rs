//! Tokens: what makes a commit one and the same when it is sent again, to this node or to the one that leads after it.
//!
//! A token is a record of the system fragment, written by the commit that it names; so it is wherever that commit is. The
//! oldest go, two with each commit that brings a new one, once there are too many or they are too old.

use std::collections::VecDeque;

use planaria_types::{TableId, Uid};

use super::Store;
use super::catalog::TOKEN_PREFIX;
use super::write::Token;
use crate::cursor::RecordKind;
use crate::error::{Error, Result};
use crate::hash;
use crate::planted::planted;
use crate::read::Changes;

/// So many tokens are kept.
pub(crate) const TOKENS_MAX: usize = 100_000;
/// For so long, in milliseconds.
pub(crate) const TOKEN_AGE_MAX_MS: u64 = 24 * 3_600_000;
/// How many old ones go with a new one.
const REMOVED_AT_ONCE: usize = 2;

/// The key of a token's record.
pub(crate) fn token_key(token: u128) -> Vec<u8> {
    [TOKEN_PREFIX, &token.to_be_bytes()].concat()
}

impl Store {
    /// The commit that was made under a token: before, or in the group that is being made. The caller leads the commits,
    /// so that everything before is visible.
    pub(super) fn known_commit(&self, wanted: Token, group: &[(Token, Uid)]) -> Result<Option<Uid>> {
        if planted!(self.options, ForgetTokens) {
            return Ok(None);
        }
        let Token { token, fingerprint } = wanted;
        let check =
            |known: u64, uid| if known == fingerprint { Ok(Some(uid)) } else { Err(Error::TokenReused) };
        if let Some((known, uid)) = group.iter().find(|(known, _)| known.token == token) {
            return check(known.fingerprint, *uid);
        }
        let key = token_key(token);
        let (version, at) = self.pin();
        let Some(fragment) = version.find(TableId::SYSTEM, &key) else { return Ok(None) };
        match fragment.get(&key, hash::key_hash(&key), at)? {
            Some(found) if found.kind == RecordKind::Put => {
                let known = found.row[..].try_into().map_or(0, u64::from_le_bytes);
                check(known, found.uid)
            }
            _ => Ok(None),
        }
    }

    /// Takes some tokens out of the list that are too old, or too many, to be deleted by the next commit.
    pub(crate) fn take_old_tokens(&self) -> Result<Vec<(Uid, u128)>> {
        let mut tokens = self.tokens.lock();
        let known = match &mut *tokens {
            Some(known) => known,
            none => none.insert(self.find_tokens()?),
        };
        let oldest = self.options.os.now_millis().saturating_sub(TOKEN_AGE_MAX_MS);
        let mut old = Vec::new();
        while old.len() < REMOVED_AT_ONCE
            && known.front().is_some_and(|(uid, _)| known.len() > TOKENS_MAX || uid.millis() < oldest)
        {
            old.extend(known.pop_front());
        }
        Ok(old)
    }

    /// Notes the token of a commit that was made.
    pub(crate) fn note_token(&self, uid: Uid, token: u128) {
        if let Some(known) = &mut *self.tokens.lock() {
            known.push_back((uid, token));
        }
    }

    /// Puts tokens back that were to be deleted and were not.
    pub(crate) fn keep_tokens(&self, old: Vec<(Uid, u128)>) {
        if let Some(known) = &mut *self.tokens.lock() {
            for token in old.into_iter().rev() {
                known.push_front(token);
            }
        }
    }

    /// Forgets the list: whoever leads next looks for the tokens again.
    pub(super) fn forget_tokens(&self) {
        *self.tokens.lock() = None;
    }

    /// All tokens, oldest first.
    fn find_tokens(&self) -> Result<VecDeque<(Uid, u128)>> {
        let (version, at) = self.pin();
        let mut changes = Changes::new(version, Uid::ZERO, at, TableId::SYSTEM, TOKEN_PREFIX);
        let mut found = Vec::new();
        while let Some(change) = changes.next()? {
            let token = change.key.strip_prefix(TOKEN_PREFIX).filter(|_| change.table == TableId::SYSTEM);
            let Some(token) = token else { break };
            if let (RecordKind::Put, Ok(token)) = (change.kind, <[u8; 16]>::try_from(token)) {
                found.push((change.uid, u128::from_be_bytes(token)));
            }
        }
        found.sort_unstable();
        Ok(found.into())
    }
}
