//! A node on a small disk of its own that fills up.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use planaria_tests::cluster::{Node, Site, TableFile, wait_for};

/// A file system in memory, unmounted when it is dropped.
pub(crate) struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts one, if this process may.
    pub(crate) fn mount(at: PathBuf, mib: u32) -> Option<Self> {
        std::fs::create_dir(&at).unwrap();
        let options = format!("size={mib}m,mode=0700");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &options, "planaria-test"]).arg(&at).output();
        mounted.ok().filter(|output| output.status.success()).map(|_| Self(at))
    }

    /// Takes all room but about `left` KiB; for none, to the last page.
    pub(crate) fn fill(&self, left_kib: usize) -> PathBuf {
        let path = self.0.join("filler");
        let mut file = File::create(&path).unwrap();
        let block = vec![1_u8; 64 << 10];
        let mut written = 0_u64;
        while file.write_all(&block).is_ok() {
            written += block.len() as u64;
        }
        if left_kib > 0 {
            file.set_len(written.saturating_sub((left_kib as u64) << 10)).unwrap();
        }
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_node_on_a_full_disk_reads_on_and_writes_again_once_there_is_room() {
    let site = Site::new();
    let Some(disk) = SmallDisk::mount(site.path("disk"), 128) else {
        eprintln!("left out: this process may not mount a file system");
        return;
    };
    let mut primary = Node::primary(&site, "disk/primary");
    let few = TableFile::write(&site, "few.csv", 2_000, |id| Some(format!("few {id}")));
    run_import(&primary, &few, "few");
    let digest = primary.run(&["digest", "few"]).stdout;

    let filler = disk.fill(256);
    let many = TableFile::write(&site, "many.csv", 200_000, |id| Some(format!("{id:0>400}")));
    let words = many.into_table("many").import();
    let answer = primary.run(&words.iter().map(String::as_str).collect::<Vec<_>>());
    let error = answer.failed(1, "no_space");
    assert!(error["hint"].as_str().is_some_and(|hint| hint.contains("again")), "{error}");
    // Reads go on, of what was there before and of what was acknowledged.
    assert!(primary.is_running());
    assert_eq!(primary.run(&["digest", "few"]).stdout, digest);
    primary.run(&["get", "few", "7"]).json();
    let told =
        answer.stdout.lines().next().map_or(0, |line| {
            serde_json::from_str::<serde_json::Value>(line).unwrap()["rows"].as_u64().unwrap()
        });
    assert!(primary.rows("many") >= told, "{told} rows were said to be there");

    std::fs::remove_file(&filler).unwrap();
    // The same process takes writes again.
    wait_for(
        "a write after there is room",
        || (primary.run(&["put", "few", "id=-1", "place=x", "birds=1", "remark=x"]).code == 0).then_some(()),
        || format!("{:?}", primary.run(&["put", "few", "id=-1", "place=x", "birds=1", "remark=x"])),
    );
    let rows = primary.rows("many");
    let again = TableFile::write(&site, "again.csv", 3_000, |id| Some(format!("{id:0>400}")));
    run_import(&primary, &again, "again");
    assert_eq!(primary.run(&["verify"]).json()[0]["sound"], true);
    primary.restart();
    assert_eq!((primary.rows("few"), primary.rows("many"), primary.rows("again")), (2_001, rows, 3_000));
    assert_eq!(primary.run(&["verify"]).json()[0]["sound"], true);
    drop(primary);
    assert!(Path::new(&site.path("disk/primary")).exists());
}

fn run_import(node: &Node<'_>, file: &TableFile, table: &str) {
    let words = file.into_table(table).import();
    node.run(&words.iter().map(String::as_str).collect::<Vec<_>>()).json();
}
