use bytes::Bytes;
use planaria_engine::{Column, ColumnType, Schema};
use planaria_net::quic::TlsStore;
use planaria_net::wire::client::Client;
use planaria_net::wire::message::{Level, Request, Response, ScanSpec, WriteOp, WriteOptions};
use planaria_net::wire::rows::RowsBuilder;
use planaria_types::{KeyRange, Uid};
use tokio::runtime::Runtime;

use crate::session::testing::{TestNode, on_both};
use crate::session::{Session, StoredRow};

fn schema() -> Schema {
    Schema::builder()
        .column(Column::new("id", ColumnType::Int64))
        .column(Column::new("bird", ColumnType::Text).nullable())
        .key(["id"])
        .build()
        .unwrap()
}

fn row(key: &str, row: &str) -> StoredRow {
    StoredRow { key: Bytes::copy_from_slice(key.as_bytes()), row: Bytes::copy_from_slice(row.as_bytes()) }
}

fn keys(session: &dyn Session, scan: ScanSpec) -> String {
    let mut keys = Vec::new();
    session
        .scan(scan, &mut |key, _| {
            keys.push(String::from_utf8(key.to_vec()).unwrap());
            Ok(true)
        })
        .unwrap();
    keys.join(" ")
}

#[test]
fn a_node_answers_as_a_directory_does() {
    on_both(|session| {
        assert_eq!(session.tables().unwrap(), []);
        let table = session.create_table("t", None).unwrap();
        assert_eq!(session.create_table("t", None).unwrap_err().code, "table_exists");
        assert_eq!(session.table("x").unwrap_err().code, "unknown_table");
        let typed = session.create_table("birds", Some(schema())).unwrap();
        assert_eq!(typed.definition.schema().unwrap().1, &schema());
        assert_eq!(session.table("birds").unwrap().definition, typed.definition);
        for key in ["a", "b", "c", "d"] {
            session.put(&table, row(key, key)).unwrap();
        }
        assert_eq!(session.get(&table, b"c").unwrap().unwrap(), &b"c"[..]);
        session.delete(&table, b"c").unwrap();
        assert_eq!(
            session.get_many(&table, &[b"a", b"c", b"d"]).unwrap(),
            [Some(Bytes::from_static(b"a")), None, Some(Bytes::from_static(b"d"))]
        );
        let all = ScanSpec { table: "t".into(), ..ScanSpec::default() };
        assert_eq!(keys(session, all.clone()), "a b d");
        assert_eq!(keys(session, ScanSpec { reverse: true, limit: Some(2), ..all.clone() }), "d b");
        assert_eq!(keys(session, ScanSpec { limit: Some(0), ..all.clone() }), "");
        assert_eq!(keys(session, ScanSpec { range: KeyRange::prefix(b"b"), ..all }), "b");
        let digests = session.digests(&[]).unwrap();
        assert_eq!(
            digests.iter().map(|(name, sum)| (name.as_str(), sum.count)).collect::<Vec<_>>(),
            [("birds", 0), ("t", 3)]
        );
        assert_eq!(session.digests(&["x".into()]).unwrap_err().code, "unknown_table");
        assert_eq!(session.verify().unwrap().damage, Vec::<String>::new());
        let status = session.status().unwrap();
        assert_eq!((status.databases.len(), status.databases[0].state.as_str()), (1, "primary"));
    });
}

#[test]
fn many_keys_are_asked_for_at_once_whatever_their_rows_weigh() {
    on_both(|session| {
        let table = session.create_table("t", None).unwrap();
        let row = |number: usize| vec![number as u8; if number.is_multiple_of(3) { 60_000 } else { 3 }];
        let mut appender = session.append(&table).unwrap();
        let key = |number: usize| format!("{number:05}").into_bytes();
        for numbers in (0..5_000).collect::<Vec<_>>().chunks(100) {
            let there = numbers.iter().filter(|number| *number % 100 < 3);
            let stored = |number: &usize| StoredRow { key: key(*number).into(), row: row(*number).into() };
            appender.push(there.map(stored).collect()).unwrap();
        }
        appender.finish().unwrap();
        drop(appender);
        let keys: Vec<_> = (0..5_000).map(key).collect();
        let asked: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
        let found = session.get_many(&table, &asked).unwrap();
        let expected = (0..5_000).map(|number| (number % 100 < 3).then(|| Bytes::from(row(number))));
        assert!(found.into_iter().eq(expected));
        assert_eq!(session.get_many(&table, &[]).unwrap(), []);
    });
}

#[test]
fn many_rows_go_in_and_come_out() {
    on_both(|session| {
        let table = session.create_table("t", None).unwrap();
        let mut appender = session.append(&table).unwrap();
        for portion in 0..20 {
            let rows = (0..1_000).map(|n| row(&format!("{portion:02}{n:04}"), &"x".repeat(100)));
            appender.push(rows.collect()).unwrap();
        }
        appender.finish().unwrap();
        assert_eq!(appender.taken(), 20_000);
        let mut count = 0;
        let mut last = Vec::new();
        let scan = ScanSpec { table: "t".into(), ..ScanSpec::default() };
        session
            .scan(scan, &mut |key, _| {
                assert!(key > last.as_slice());
                last = key.to_vec();
                count += 1;
                Ok(true)
            })
            .unwrap();
        assert_eq!(count, 20_000);
    });
}

fn client(runtime: &Runtime, node: &TestNode) -> Client {
    let credentials = TlsStore::named(node.tls()).load().unwrap();
    runtime.block_on(Client::connect(node.address().parse().unwrap(), &credentials)).unwrap()
}

#[test]
fn what_a_client_sends_is_not_believed() {
    let node = TestNode::start();
    node.session().create_table("birds", Some(schema())).unwrap();
    let runtime = Runtime::new().unwrap();
    let client = client(&runtime, &node);
    let put = WriteOp::Put { table: "birds".into(), key: "x".into(), value: "y".into() };
    let write = Request::Write { ops: vec![put], options: WriteOptions::default() };
    assert_eq!(runtime.block_on(client.call(write)).unwrap_err().code(), "invalid");
    let mut rows = RowsBuilder::new();
    rows.push(Uid::ZERO, b"x", b"y").unwrap();
    let request = Request::Import { table: "birds".into(), options: WriteOptions::default() };
    let import = async {
        let mut import = client.import(request).await?;
        import.send(rows.take()).await?;
        import.finish().await
    };
    assert_eq!(runtime.block_on(import).unwrap_err().code(), "invalid");
    let definition = Request::TableCreate { name: "t".into(), definition: "\u{1}junk".into() };
    assert_eq!(runtime.block_on(client.call(definition)).unwrap_err().code(), "invalid");
    assert_eq!(node.session().digests(&[]).unwrap()[0].1.count, 0);
}

#[test]
fn what_a_node_does_not_do_it_says() {
    let node = TestNode::start();
    node.session().create_table("t", None).unwrap();
    let runtime = Runtime::new().unwrap();
    let client = client(&runtime, &node);
    let put = WriteOp::Put { table: "t".into(), key: "x".into(), value: "y".into() };
    let range = WriteOp::DeleteRange { table: "t".into(), range: KeyRange::ALL };
    let write = |op: &WriteOp, options| Request::Write { ops: vec![op.clone()], options };
    for request in [
        write(&put, WriteOptions { level: Level::Quorum, durable: true, ..WriteOptions::default() }),
        write(&range, WriteOptions::default()),
        Request::TableDrop { name: "t".into() },
        Request::Get { table: "t".into(), key: "x".into(), at: Some(Uid::new(1)) },
        Request::ReplicaList,
        Request::CloneList,
    ] {
        let shown = format!("{request:?}");
        assert_eq!(runtime.block_on(client.call(request)).unwrap_err().code(), "unsupported", "{shown}");
    }
    let ping = runtime.block_on(client.clone().with_database("birds").call(Request::Ping));
    assert_eq!(ping.unwrap(), Response::Done);
    let other = runtime.block_on(client.with_database("fish").call(Request::Ping));
    assert_eq!(other.unwrap_err().code(), "unknown_database");
    assert_eq!(node.session().digests(&[]).unwrap()[0].1.count, 0, "nothing was written");
}

#[test]
fn commands_work_on_a_node() {
    let node = TestNode::start();
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("planes.csv");
    let (address, tls) = (node.address(), node.tls().display().to_string());
    let run = |words: &[&str]| {
        let mut arguments = vec!["planaria", "-o", "json", "--node", &address, "--tls", &tls];
        arguments.extend(words);
        let arguments: Vec<_> = arguments.into_iter().map(Into::into).collect();
        crate::commands::run(&crate::parse(&arguments).unwrap())
    };
    let planes = concat!(env!("CARGO_MANIFEST_DIR"), "/data/planes.csv.gz");
    run(&["import", planes, "--key", "tailnum", "--null", "NA"]).unwrap();
    run(&["export", "planes", out.to_str().unwrap(), "--null", "NA"]).unwrap();
    run(&["import", out.to_str().unwrap(), "--table", "again", "--key", "tailnum", "--null", "NA"]).unwrap();
    let digests = node.session().digests(&[]).unwrap();
    assert_eq!((digests[0].1, digests[0].1.count), (digests[1].1, 3_322));
    run(&["get", "planes", "N10156"]).unwrap();
    assert_eq!(run(&["get", "planes", "nothing"]).unwrap_err().code, "no_row");
    run(&["verify"]).unwrap();
    run(&["status"]).unwrap();
    assert_eq!(run(&["table", "show", "fish"]).unwrap_err().code, "unknown_table");
}
