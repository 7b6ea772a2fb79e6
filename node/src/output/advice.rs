//! What to do about a failure, by its code, where whoever met it had nothing more precise to say.

/// What to do about a failure of this code. `None` where its message says so itself, or where there is nothing to do.
///
/// The same is in the manual, under "When something fails".
pub(super) fn advice(code: &str) -> Option<&'static str> {
    Some(match code {
        "io" | "output" => "see to it that the path is there, is of that kind, and may be read and written",
        "invalid_shape" => "correct the table, column, condition or mask; nothing was made",
        "busy" => "wait until that is over, then try again",
        "no_clone" => "remove its directory if it is not needed",
        "not_found" => "look at the name: nothing of that name is there",
        "exists" | "name_taken" | "table_exists" => "choose another name",
        "backup_exists" => "choose another --name",
        "poisoned" => "look at the disk and the system's log, then start the process again",
        "damaged" => "`planaria verify` tells how much is damaged; take a new copy from another node",
        "foreign" | "protocol" | "unsupported" => {
            "see whether all that takes part is of one release, `planaria --version`"
        }
        "foreign_database" => "name another directory, or a node of the same database",
        "schema" => "`planaria table show` names the columns and their types",
        "too_large" => "write it in smaller parts",
        "no_primary" => "wait for a promotion; `planaria cluster show` tells who leads",
        "unknown" => "send it again with the same --token, which makes it at most once",
        "unknown_replica" => "`planaria replica list` at the primary names them",
        "unknown_clone" | "not_open" => "`planaria clone list` and `planaria cluster clone list` name them",
        "unknown_database" => "`planaria cluster show` names the databases",
        "unknown_backup" => "`planaria backup list` names them",
        "unknown_rule" => "`planaria cluster rule list` names them",
        "too_few_copies" => "start secondaries, or write at a lower level",
        "deposed" => {
            "write at the copy that leads now, and have this one follow it with `planaria replica follow`"
        }
        "not_held" => "ask a copy that holds it, as the primary does",
        "partial" => "name a copy that holds everything",
        "not_here" => "what is here can be read; try again when the source answers",
        "hydrating" | "not_readable" => {
            "`planaria clone wait` until it is complete, then `planaria serve` its directory"
        }
        "over" => "`planaria clone list` tells what became of it",
        "running" | "not_complete" => {
            "`planaria clone wait` until it is complete, or `planaria clone cancel` it"
        }
        "token" => "give the token that `planaria cluster token show` tells",
        "removed" => "to have it back, start it with the token of now: `planaria cluster token show`",
        "no_spare" => "start a node with `planaria serve --spare` and that --role",
        "not_spare" => "name a node that was started with `planaria serve --spare`",
        "primary_heard" | "not_leading" => {
            "look who leads: `planaria cluster show`, or `planaria status` of the copies"
        }
        "may_lose" => "promote the copy that has more, or say --force to lose what was named",
        "no_store" | "store_unreachable" => {
            "see to it that the store is there and can be reached from this machine"
        }
        "store_denied" => "see to it that the credentials may read and write there",
        "object_damaged" | "object_missing" => {
            "`planaria backup verify` tells which backups need it; make a new one"
        }
        "several_databases" => "say which one with --database",
        "outside_kept" => "choose a time that is kept: `planaria backup list` names them",
        "objects_vanished" => "make the backup again, and prune with a longer --grace",
        "not_reached" | "too_stale" => "wait with a longer --timeout, or ask the primary",
        "taken_back" => "what was written there is in the quarantine of a copy: `planaria quarantine list`",
        "timed_out" | "connection_lost" | "ended" => "see to it that the node runs and can be reached",
        "handshake" | "certificate" => {
            "give both sides the certificates of one authority: the same --tls directory, copied to each machine"
        }
        "not_ready" => "wait until it has brought up what it holds: `planaria status`",
        "superseded" => "a later order has taken its place; look at `planaria cluster history`",
        "internal" => "this is a fault of the program: please report it with its log",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::advice;

    /// What the engine's own messages say what to do about.
    const SAID_BY_ITS_MESSAGE: [&str; 6] =
        ["in_use", "no_space", "not_exchanged", "read_only", "token_reused", "no_credentials"];

    /// Ends of something that somebody else has a hint for, by the copies that are there.
    const SAID_BY_WHO_REFUSES: [&str; 6] =
        ["node_heard", "too_early", "leads", "named", "spare", "not_promotable"];

    #[test]
    fn there_is_advice_for_each_code_of_the_manual() {
        let manual = include_str!("../../../docs/OPERATIONS.md");
        let (_, rest) = manual.split_once("| code | what it means | what to do |").unwrap();
        let rows = rest.lines().skip(2).take_while(|line| line.starts_with('|'));
        let mut codes = 0;
        for row in rows {
            for code in row.split('|').nth(1).unwrap().split(',').map(|code| code.trim().trim_matches('`')) {
                let is_said = SAID_BY_ITS_MESSAGE.contains(&code) || SAID_BY_WHO_REFUSES.contains(&code);
                assert!(advice(code).is_some() != is_said, "{code}");
                codes += 1;
            }
        }
        assert!(codes > 40, "{codes}");
    }
}
