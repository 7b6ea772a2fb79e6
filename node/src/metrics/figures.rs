//! The figures of a node, as Prometheus reads them. Names are in base units; each look makes them anew, so that what is
//! gone is not told any more.

use metrics::{counter, describe_counter, describe_gauge, gauge, with_local_recorder};
use metrics_exporter_prometheus::PrometheusBuilder;
use planaria_net::replica::FollowStatus;
use planaria_net::wire::message::ReplicaInfo;

use crate::node::Observed;

/// The states that a secondary may be in at its primary.
const REPLICA_STATES: [&str; 4] = ["online", "refreshing", "paused", "offline"];

/// All figures, as text.
pub(super) fn render(observed: &Observed) -> String {
    let recorder = PrometheusBuilder::new().build_recorder();
    with_local_recorder(&recorder, || {
        describe();
        of_the_database(observed);
        for replica in &observed.replicas {
            of_a_replica(replica);
        }
        if let Some(following) = &observed.following {
            of_a_secondary(following);
        }
    });
    recorder.handle().render()
}

fn describe() {
    describe_gauge!("planaria_ready", "Whether reads here show what the primary has");
    describe_gauge!("planaria_leads", "Whether this node is the primary");
    describe_gauge!("planaria_epoch_term", "The term of the epoch that the node follows or leads");
    describe_gauge!("planaria_visible_time_seconds", "The time of the visible cut, since 1970");
    describe_gauge!("planaria_run_files", "Run files");
    describe_gauge!("planaria_run_bytes", "Bytes of run files");
    describe_gauge!("planaria_log_bytes", "Bytes of the log that is retained");
    describe_gauge!(
        "planaria_memtable_bytes",
        "Bytes of memory that records take before they are written out"
    );
    describe_gauge!("planaria_cache_bytes", "Bytes of the cache of blocks");
    describe_gauge!(
        "planaria_damaged",
        "Whether damage was met in a file of the copy, which is to be replaced"
    );
    describe_gauge!("planaria_notices", "What an operator should know of: `planaria status` tells");
    describe_gauge!("planaria_replica_state", "1 for the state that a secondary is in");
    describe_gauge!("planaria_replica_promotable", "Whether the secondary may be promoted");
    describe_gauge!(
        "planaria_replica_lag_seconds",
        "The time between a secondary's last commit and the last"
    );
    describe_gauge!("planaria_replica_lag_bytes", "What bringing a secondary up to date would move");
    describe_gauge!("planaria_replica_preserved_bytes", "Delete marks that are preserved for it");
    describe_gauge!("planaria_replica_preserved_age_seconds", "How long ago its position was current");
    describe_gauge!("planaria_replica_given_up", "Whether nothing is preserved for it any more");
    describe_counter!("planaria_refreshes_total", "Refreshes of this secondary, by way and reason");
    describe_gauge!("planaria_last_refresh_seconds", "What the last refresh took");
    describe_gauge!("planaria_last_refresh_records", "Records that the last refresh moved");
    describe_gauge!("planaria_last_refresh_bytes", "Bytes that the last refresh moved");
    describe_counter!("planaria_live_commits_total", "Commits from the live stream");
    describe_counter!("planaria_live_bytes_total", "Bytes of commits from the live stream");
    describe_counter!("planaria_refresh_records_total", "Records from deltas, rewinds and reconciles");
    describe_counter!("planaria_refresh_bytes_total", "Bytes of records from deltas, rewinds and reconciles");
    describe_counter!(
        "planaria_deltas_resumed_total",
        "Deltas that went on from what an interrupted one had brought"
    );
    describe_counter!("planaria_sessions_total", "Sessions with a primary");
    describe_counter!("planaria_forks_total", "Times that something was taken back beyond a fork");
    describe_counter!("planaria_hops_total", "Refreshes that went without the live stream");
}

fn of_the_database(observed: &Observed) {
    let (status, engine) = (&observed.status, &observed.engine);
    gauge!("planaria_ready").set(u8::from(observed.is_ready()));
    gauge!("planaria_leads").set(u8::from(status.state == "primary"));
    gauge!("planaria_epoch_term").set(status.epoch.term as f64);
    gauge!("planaria_visible_time_seconds").set(status.visible.millis() as f64 / 1e3);
    gauge!("planaria_run_files").set(engine.run_files as f64);
    gauge!("planaria_run_bytes").set(engine.run_bytes as f64);
    gauge!("planaria_log_bytes").set(engine.log_bytes as f64);
    gauge!("planaria_memtable_bytes").set(engine.memtable_bytes as f64);
    gauge!("planaria_cache_bytes").set(engine.cache_bytes as f64);
    gauge!("planaria_damaged").set(u8::from(engine.damage.is_some()));
    gauge!("planaria_notices").set(status.notices.len() as f64);
}

fn of_a_replica(replica: &ReplicaInfo) {
    let labels = [("replica", replica.node.clone()), ("instance", replica.instance.to_string())];
    for state in REPLICA_STATES {
        let [name, instance] = labels.clone();
        let labels = [name, instance, ("state", state.to_owned())];
        gauge!("planaria_replica_state", &labels).set(u8::from(replica.state == state));
    }
    gauge!("planaria_replica_promotable", &labels).set(u8::from(replica.promotable));
    gauge!("planaria_replica_lag_seconds", &labels).set(replica.lag_ms as f64 / 1e3);
    gauge!("planaria_replica_lag_bytes", &labels).set(replica.lag_bytes as f64);
    gauge!("planaria_replica_preserved_bytes", &labels).set(replica.preserved_bytes as f64);
    gauge!("planaria_replica_preserved_age_seconds", &labels).set(replica.preserved_age_ms as f64 / 1e3);
    gauge!("planaria_replica_given_up", &labels).set(u8::from(!replica.given_up.is_empty()));
}

fn of_a_secondary(following: &FollowStatus) {
    for (way, reason, count) in &following.refreshes {
        let labels = [("way", way.to_string()), ("reason", reason.code().to_owned())];
        counter!("planaria_refreshes_total", &labels).absolute(*count);
    }
    if let Some(ms) = following.last_refresh_ms {
        gauge!("planaria_last_refresh_seconds").set(ms as f64 / 1e3);
        gauge!("planaria_last_refresh_records").set(following.last_refresh_records as f64);
        gauge!("planaria_last_refresh_bytes").set(following.last_refresh_bytes as f64);
    }
    let counters = &following.replica.counters;
    counter!("planaria_live_commits_total").absolute(counters.commits);
    counter!("planaria_live_bytes_total").absolute(counters.live_bytes);
    counter!("planaria_refresh_records_total").absolute(counters.records);
    counter!("planaria_refresh_bytes_total").absolute(counters.refresh_bytes);
    counter!("planaria_deltas_resumed_total").absolute(counters.resumptions);
    counter!("planaria_sessions_total").absolute(counters.sessions);
    counter!("planaria_forks_total").absolute(counters.forks);
    counter!("planaria_hops_total").absolute(counters.hops);
}
