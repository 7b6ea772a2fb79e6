#!/usr/bin/env python3
"""A first copy over the network: Planaria beside PostgreSQL, Redis, rsync and sqlite3_rsync, in one run on one machine.

    cargo build --release
    bench/rivals/clone.py [--records 1000000] [--value-size 1000] [--rounds 3] [-o json]

Each system gets the same number of records (8-byte keys, rows half compressible) and is timed from the moment at which a copy of all of
them is asked for over loopback until the copy lies durably on the target's disk: Planaria by `bench clone`, PostgreSQL
by pg_basebackup (which syncs what it wrote), Redis by a full synchronisation to a replica that keeps the file which it receives,
rsync over its daemon on files of 64 MiB with --fsync, sqlite3_rsync on a database in WAL mode whose copy is synced
afterwards. The rounds take turns. Everything runs in a new temporary directory, with ports of its own, and is stopped at the end.

Rates are of the records as they were given: keys and rows, whatever a system makes of them; `stored` is what the copy has on disk.
`times as long` is the time of a byte of records, over that of Planaria.

Needs PostgreSQL (its server programs), redis-server, rsync and sqlite3_rsync; what is missing is left out and said so.
On Debian: apt-get install postgresql redis-server rsync. sqlite3_rsync is part of SQLite's own tools since 3.47; Debian 12 has no
package of it, so it has to be on the PATH. The package apsw of PyPI carries it (in apsw/sqlite_extra_binaries).
"""

import argparse
import json
import os
import pwd
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time

# The script beside this one is read as it lies; nothing is left behind there.
sys.dont_write_bytecode = True
import resync
from resync import PostgreSQL, Redis, Rsync, free_port, key, log, median, row


def size_of(directory):
    """Bytes that the files below a directory take."""
    total = 0
    for place, _, names in os.walk(directory):
        total += sum(os.stat(os.path.join(place, name)).st_blocks * 512 for name in names)
    return total


class Planaria(resync.Planaria):
    def measure(self):
        command = [self.program, "bench", "clone", "-o", "json", "--kind", "remote", "--rounds", "1"]
        command += ["--dir", self.directory]
        command += ["--records", str(self.work.records), "--value-size", str(self.work.value_size)]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        self.ceiling = found["raw_quic_durable_bytes_per_second"]
        return {"seconds": found["seconds"], "stored": found["bytes"], "equal": found["digests_equal"]}


class BaseBackup(PostgreSQL):
    name = "PostgreSQL, pg_basebackup"

    def measure(self):
        home = os.path.join(self.directory, "postgres")
        os.makedirs(home)
        os.chmod(self.directory, 0o755)
        if os.getuid() == 0:
            owner = pwd.getpwnam("postgres")
            os.chown(home, owner.pw_uid, owner.pw_gid)
        self.sockets = home
        primary, copy = os.path.join(home, "primary"), os.path.join(home, "copy")
        port = free_port()
        owner = pwd.getpwuid(os.getuid()).pw_name if os.getuid() else "postgres"
        self.run("initdb", "-D", primary, "-A", "trust", "-U", owner)
        with open(os.path.join(primary, "postgresql.conf"), "a", encoding="utf-8") as conf:
            conf.write("shared_buffers = 1GB\nmax_wal_size = 8GB\nwal_level = replica\n")
        self.start(primary, port)
        try:
            self.load(port)
            self.sql(port, "checkpoint")
            begun = time.monotonic()
            source = f"host=127.0.0.1 port={port}"
            self.run("pg_basebackup", "-d", source, "-D", copy, "-c", "fast", "-X", "stream")
            seconds = time.monotonic() - begun
        finally:
            self.stop(primary)
        # It says by its exit code whether every file is what the server sent.
        self.run("pg_verifybackup", copy)
        return {"seconds": seconds, "stored": size_of(copy), "equal": True}

    def load(self, port):
        """Records alone: no second index, as the others have none."""
        self.sql(port, "create table records (key bigint primary key, value text)")
        path = os.path.join(self.sockets, "records.tsv")
        with open(path, "w", encoding="ascii") as file:
            for name, number in sorted((key(number), number) for number in range(self.work.records)):
                file.write(f"{name - (1 << 63)}\t{row(number, 0, self.work.value_size)}\n")
        self.run("psql", "-qX", "-h", self.sockets, "-p", str(port), "-d", "postgres", "-c", f"\\copy records from '{path}'")
        os.remove(path)
        self.sql(port, "vacuum analyze records")


class FullSync(Redis):
    def __init__(self, work, directory):
        super().__init__(work, directory, "1mb")
        self.name = "Redis, full synchronisation"

    def measure(self):
        ports = free_port(), free_port()
        # What the replica receives goes to its disk first, synced, and is loaded from there.
        servers = [
            self.start("primary", ports[0]),
            self.start("copy", ports[1], "--repl-diskless-load", "disabled", "--rdb-del-sync-files", "no"),
        ]
        try:
            self.write(ports[0], range(self.work.records), 0)
            begun = time.monotonic()
            self.follow(ports)
            seconds = time.monotonic() - begun
            digests = [self.ask(port, "DEBUG", "DIGEST") for port in ports]
            equal = len(digests[0]) == 40 and digests[0] == digests[1]
            stored = size_of(os.path.join(self.directory, "copy"))
        finally:
            for server in servers:
                server.kill()
                server.wait()
        return {"seconds": seconds, "stored": stored, "equal": equal and stored > 0}


class FileSync(Rsync):
    def measure(self):
        source, target = (os.path.join(self.directory, name) for name in ("source", "target"))
        os.makedirs(source)
        os.makedirs(target)
        self.write(source, sorted(key(number) for number in range(self.work.records)), set())
        with self.serve(source) as port:
            seconds, _ = self.copy(port, target)
        return {"seconds": seconds, "stored": size_of(target), "equal": self.are_equal(source, target)}


class SqliteRsync:
    name = "sqlite3_rsync"

    def __init__(self, work, directory):
        self.work, self.directory = work, directory

    def missing(self):
        return None if shutil.which("sqlite3_rsync") else "no sqlite3_rsync on the PATH"

    def measure(self):
        source, target = (os.path.join(self.directory, name) for name in ("source.db", "target.db"))
        with sqlite3.connect(source) as db:
            db.execute("pragma journal_mode = wal")
            db.execute("create table records (key integer primary key, value text)")
            numbers = sorted((key(number), number) for number in range(self.work.records))
            size = self.work.value_size
            db.executemany(
                "insert into records values (?, ?)", ((name - (1 << 63), row(number, 0, size)) for name, number in numbers)
            )
        db.close()
        begun = time.monotonic()
        subprocess.run(["sqlite3_rsync", source, target], check=True, capture_output=True)
        with open(target, "rb+") as file:
            os.fsync(file.fileno())
        seconds = time.monotonic() - begun
        rows = []
        for path in (source, target):
            db = sqlite3.connect(path)
            rows.append(db.execute("select count(*), sum(length(value)), min(value), max(value) from records").fetchall())
            db.close()
        return {"seconds": seconds, "stored": size_of(self.directory) // 2, "equal": rows[0] == rows[1]}


def rivals(work):
    yield Planaria(work, "")
    yield BaseBackup(work, "")
    yield FullSync(work, "")
    yield FileSync(work, "")
    yield SqliteRsync(work, "")


def table_of(work, results):
    given = work.records * (8 + work.value_size)
    first = median(results[Planaria.name], "seconds") if Planaria.name in results else None
    for name, found in results.items():
        seconds = median(found, "seconds")
        yield {
            "system": name,
            "seconds": seconds,
            "rounds": [result["seconds"] for result in found],
            "bytes": given,
            "bytes_per_second": int(given / seconds),
            "stored_bytes": int(median(found, "stored")),
            "times_as_long": seconds / first if first else None,
            "equal": all(result["equal"] for result in found),
        }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], epilog=__doc__[__doc__.index("Needs") :])
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--value-size", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=3, help="rounds, one system after the other in each")
    parser.add_argument("--program", help="the program planaria [default: target/release/planaria]")
    parser.add_argument("--dir", help="where the temporary directories are made")
    parser.add_argument("-o", "--output", choices=["table", "json"], default="table")
    work = parser.parse_args()
    results, left_out = {}, {}
    for turn in range(work.rounds):
        for rival in rivals(work):
            if isinstance(rival, Planaria) and work.program:
                rival.program = os.path.abspath(work.program)
            missing = rival.missing()
            if missing:
                if rival.name not in left_out:
                    log(f"{rival.name}: left out ({missing})")
                left_out[rival.name] = missing
                continue
            with tempfile.TemporaryDirectory(prefix="clone-", dir=work.dir) as directory:
                rival.directory = directory
                log(f"round {turn + 1} of {work.rounds}: {rival.name}")
                # What the one before has still to write is not to be waited for by this one.
                os.sync()
                results.setdefault(rival.name, []).append(rival.measure())
    table = list(table_of(work, results))
    if work.output == "json":
        print(json.dumps({"systems": table, "left_out": left_out}))
    else:
        print(f"{'system':30} {'seconds':>9} {'records':>12} {'stored':>10} {'times as long':>14}  equal")
        for line in table:
            ratio = f"{line['times_as_long']:.2f}" if line["times_as_long"] else ""
            print(
                f"{line['system']:30} {line['seconds']:>9.3f} {line['bytes_per_second'] / 1e6:>7.0f} MB/s"
                f" {line['stored_bytes'] / 1e6:>7.0f} MB {ratio:>14}  {'yes' if line['equal'] else 'NO'}"
            )
    if not all(line["equal"] for line in table):
        sys.exit(1)


if __name__ == "__main__":
    main()
