#!/usr/bin/env python3
"""Catching up after an absence: Planaria beside PostgreSQL, Redis and rsync, in one run on one machine.

    cargo build --release
    bench/rivals/resync.py [--records 1000000] [--value-size 100] [--changed 0.01] [--rounds 3] [-o json]

Each system gets the same records (8-byte keys, rows half compressible), a copy on the same machine over loopback, the
same part of the records changed while the copy is away, and is timed from the copy's start until it shows the last
change. Each system is set up as its documentation recommends for this: PostgreSQL with a physical replication slot,
Redis with its default backlog and with one that is large enough, rsync over its daemon on files of 64 MiB in which the
records lie sorted by key. Everything runs in a new temporary directory, with ports of its own, and is stopped at the end.

Needs PostgreSQL (its server programs), redis-server and rsync; what is missing is left out and said so.
On Debian: apt-get install postgresql redis-server rsync
"""

import argparse
import contextlib
import glob
import json
import os
import pwd
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
WAIT_SECONDS = 600


def log(text):
    print(text, file=sys.stderr, flush=True)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_until(what, is_so, seconds=WAIT_SECONDS, every=0.002):
    """The seconds that it took until `is_so` was true."""
    begun = time.monotonic()
    while time.monotonic() - begun < seconds:
        if is_so():
            return time.monotonic() - begun
        time.sleep(every)
    raise RuntimeError(f"{what} took more than {seconds} s")


def row(number, turn, size):
    """Half random bytes as hexadecimal digits, half dots."""
    half = random.Random(number * 1_000_003 + turn).getrandbits(size // 2 * 4)
    return f"{half:0{size // 2}x}".ljust(size, ".")


def key(number):
    """Numbers spread over all keys, each once (the finaliser of SplitMix64)."""
    mask = (1 << 64) - 1
    z = (number + 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


class Planaria:
    name = "Planaria"

    def __init__(self, work, directory):
        self.work, self.directory = work, directory
        self.program = os.path.join(ROOT, "target", "release", "planaria")

    def missing(self):
        return None if os.path.exists(self.program) else "build it with cargo build --release"

    def measure(self):
        command = [self.program, "bench", "resync", "-o", "json", "--dir", self.directory]
        command += ["--records", str(self.work.records), "--value-size", str(self.work.value_size)]
        command += ["--changed", str(self.work.changed), "--deleted", "0"]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        return {
            "way": found["way"],
            "seconds": found["open_seconds"] + found["seconds"],
            "bytes": found["bytes_udp"],
            "full_copy_seconds": found["full_clone_seconds"],
            "equal": found["digests_equal"],
        }


class PostgreSQL:
    name = "PostgreSQL"

    def __init__(self, work, directory):
        self.work, self.directory = work, directory
        found = sorted(glob.glob("/usr/lib/postgresql/*/bin"))
        self.programs = found[-1] if found else None

    def missing(self):
        return None if self.programs else "no server programs under /usr/lib/postgresql"

    def run(self, program, *arguments, text=None):
        # The server refuses to run as root.
        command = [os.path.join(self.programs, program), *arguments]
        user = None
        if os.getuid() == 0:
            user = "postgres"
        done = subprocess.run(command, input=text, text=True, capture_output=True, user=user, cwd="/")
        if done.returncode != 0:
            raise RuntimeError(f"{program}: {done.stderr.strip()}")
        return done.stdout.strip()

    def sql(self, port, text):
        return self.run("psql", "-qAtX", "-h", self.sockets, "-p", str(port), "-d", "postgres", "-c", text)

    def start(self, data, port):
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self.sockets}"
        self.run("pg_ctl", "-D", data, "-o", options, "-l", os.path.join(self.sockets, f"{port}.log"), "-w", "start")

    def stop(self, data):
        self.run("pg_ctl", "-D", data, "-m", "fast", "-w", "stop")

    def measure(self):
        home = os.path.join(self.directory, "postgres")
        os.makedirs(home)
        os.chmod(self.directory, 0o755)
        if os.getuid() == 0:
            owner = pwd.getpwnam("postgres")
            os.chown(home, owner.pw_uid, owner.pw_gid)
        self.sockets = home
        primary, standby = os.path.join(home, "primary"), os.path.join(home, "standby")
        ports = free_port(), free_port()
        self.run("initdb", "-D", primary, "-A", "trust", "-U", pwd.getpwuid(os.getuid()).pw_name if os.getuid() else "postgres")
        with open(os.path.join(primary, "postgresql.conf"), "a", encoding="utf-8") as conf:
            conf.write("shared_buffers = 1GB\nmax_wal_size = 8GB\nwal_level = replica\nmax_slot_wal_keep_size = -1\n")
        self.start(primary, ports[0])
        running = [primary]
        try:
            self.load(ports[0])
            self.sql(ports[0], "select pg_create_physical_replication_slot('copy')")
            begun = time.monotonic()
            source = f"host=127.0.0.1 port={ports[0]}"
            self.run("pg_basebackup", "-d", source, "-D", standby, "-R", "-S", "copy", "-c", "fast", "-X", "stream")
            full = time.monotonic() - begun
            self.start(standby, ports[1])
            running.append(standby)
            self.caught_up(*ports)
            self.stop(standby)
            running.remove(standby)
            changed = int(self.work.records * self.work.changed)
            self.sql(ports[0], "checkpoint")
            before = self.sql(ports[0], "select pg_current_wal_lsn()")
            self.sql(ports[0], f"update records set value = md5(value) || substr(value, 33) where number < {changed}")
            sent = self.sql(ports[0], f"select pg_current_wal_lsn() - '{before}'::pg_lsn")
            begun = time.monotonic()
            self.start(standby, ports[1])
            running.append(standby)
            self.caught_up(*ports)
            seconds = time.monotonic() - begun
            digest = "select md5(string_agg(value, '' order by key)) from records"
            equal = self.sql(ports[0], digest) == self.sql(ports[1], digest)
        finally:
            for data in running:
                self.stop(data)
        return {"way": "log", "seconds": seconds, "bytes": int(sent), "full_copy_seconds": full, "equal": equal}

    def load(self, port):
        self.sql(port, "create table records (key bigint primary key, number bigint, value text)")
        lines = []
        for number in range(self.work.records):
            signed = key(number) - (1 << 63)
            lines.append(f"{signed}\t{number}\t{row(number, 0, self.work.value_size)}\n")
        path = os.path.join(self.sockets, "records.tsv")
        with open(path, "w", encoding="ascii") as file:
            file.writelines(sorted(lines))
        self.run("psql", "-qX", "-h", self.sockets, "-p", str(port), "-d", "postgres", "-c", f"\\copy records from '{path}'")
        os.remove(path)
        self.sql(port, "create index on records (number)")
        self.sql(port, "vacuum analyze records")

    def caught_up(self, primary, standby):
        goal = self.sql(primary, "select pg_current_wal_lsn()")
        query = f"select pg_last_wal_replay_lsn() >= '{goal}'::pg_lsn"
        wait_until("the standby's return", lambda: self.sql(standby, query) == "t")


class Redis:
    def __init__(self, work, directory, backlog):
        self.work, self.directory, self.backlog = work, directory, backlog
        self.name = "Redis, backlog of " + ("1 MB (the default)" if backlog == "1mb" else backlog)

    def missing(self):
        return None if shutil.which("redis-server") else "no redis-server"

    def start(self, name, port, *options):
        home = os.path.join(self.directory, name)
        os.makedirs(home, exist_ok=True)
        command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", home, "--save", "", "--logfile", "log"]
        command += ["--repl-backlog-size", self.backlog, "--repl-diskless-sync-delay", "0"]
        command += ["--enable-debug-command", "yes", *options]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        wait_until("the start of Redis", lambda: self.ask(port, "PING") == "PONG")
        return server

    def ask(self, port, *words):
        done = subprocess.run(["redis-cli", "-p", str(port), *words], capture_output=True, text=True)
        return done.stdout.strip()

    def info(self, port, field):
        for line in self.ask(port, "INFO").splitlines():
            if line.startswith(field + ":"):
                return line.split(":", 1)[1].strip()
        return ""

    def write(self, port, numbers, turn):
        feed = subprocess.Popen(["redis-cli", "-p", str(port), "--pipe"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        for number in numbers:
            name, value = f"{key(number):016x}", row(number, turn, self.work.value_size)
            feed.stdin.write(f"*3\r\n$3\r\nSET\r\n$16\r\n{name}\r\n${len(value)}\r\n{value}\r\n".encode())
        feed.stdin.close()
        if feed.wait() != 0:
            raise RuntimeError("redis-cli --pipe failed")

    def measure(self):
        ports = free_port(), free_port()
        servers = [self.start("primary", ports[0]), self.start("copy", ports[1])]
        try:
            self.write(ports[0], range(self.work.records), 0)
            begun = time.monotonic()
            self.follow(ports)
            full = time.monotonic() - begun
            # Away, with what it holds still in memory: kinder than a restart, which would have to load a file first.
            self.ask(ports[1], "REPLICAOF", "127.0.0.1", "1")
            self.write(ports[0], range(int(self.work.records * self.work.changed)), 1)
            before = int(self.info(ports[0], "total_net_output_bytes") or 0), int(self.info(ports[0], "sync_full"))
            begun = time.monotonic()
            self.follow(ports)
            seconds = time.monotonic() - begun
            sent = int(self.info(ports[0], "total_net_output_bytes") or 0) - before[0]
            way = "everything anew" if int(self.info(ports[0], "sync_full")) > before[1] else "backlog"
            digests = [self.ask(port, "DEBUG", "DIGEST") for port in ports]
            equal = len(digests[0]) == 40 and digests[0] == digests[1]
        finally:
            for server in servers:
                server.kill()
                server.wait()
        return {"way": way, "seconds": seconds, "bytes": sent, "full_copy_seconds": full, "equal": equal}

    def follow(self, ports):
        self.ask(ports[1], "REPLICAOF", "127.0.0.1", str(ports[0]))
        goal = int(self.info(ports[0], "master_repl_offset"))

        def there():
            up = self.info(ports[1], "master_link_status") == "up"
            return up and int(self.info(ports[1], "slave_repl_offset") or 0) >= goal

        wait_until("the return of Redis", there)


class Rsync:
    name = "rsync, sorted files of 64 MiB"

    def __init__(self, work, directory):
        self.work, self.directory = work, directory

    def missing(self):
        return None if shutil.which("rsync") else "no rsync"

    def measure(self):
        source, target = (os.path.join(self.directory, name) for name in ("source", "target"))
        os.makedirs(source)
        os.makedirs(target)
        records = sorted(key(number) for number in range(self.work.records))
        changed = {key(number) for number in range(int(self.work.records * self.work.changed))}
        self.write(source, records, set())
        with self.serve(source) as port:
            full, _ = self.copy(port, target)
            self.write(source, records, changed)
            seconds, received = self.copy(port, target)
        return {"way": "blocks", "seconds": seconds, "bytes": received, "full_copy_seconds": full, "equal": self.are_equal(source, target)}

    @contextlib.contextmanager
    def serve(self, source):
        """Rsync's own daemon, which gives away a directory for as long as this lasts; answers its port."""
        port = free_port()
        config = os.path.join(self.directory, "rsyncd.conf")
        with open(config, "w", encoding="ascii") as file:
            file.write(f"use chroot = no\nuid = {os.getuid()}\ngid = {os.getgid()}\n[source]\npath = {source}\nread only = yes\n")
        command = ["rsync", "--daemon", "--no-detach", f"--port={port}", "--address=127.0.0.1", f"--config={config}"]
        daemon = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            wait_until("the start of rsync", lambda: self.is_up(port))
            yield port
        finally:
            daemon.kill()
            daemon.wait()

    def are_equal(self, source, target):
        return subprocess.run(["diff", "-rq", source, target], stdout=subprocess.DEVNULL).returncode == 0

    def is_up(self, port):
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    def write(self, directory, records, changed):
        per_file = (64 << 20) // (16 + self.work.value_size)
        for at in range(0, len(records), per_file):
            lines = (f"{name:016x}{row(name, int(name in changed), self.work.value_size)}" for name in records[at : at + per_file])
            with open(os.path.join(directory, f"{at:012d}"), "w", encoding="ascii") as file:
                file.write("".join(lines))

    def copy(self, port, target):
        begun = time.monotonic()
        command = ["rsync", "-r", "--inplace", "--fsync", "--stats", f"rsync://127.0.0.1:{port}/source/", target + "/"]
        done = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"})
        seconds = time.monotonic() - begun
        received = next(line for line in done.stdout.splitlines() if line.startswith("Total bytes received"))
        return seconds, int(received.split(":")[1].replace(",", "").strip())


def rivals(work, directory):
    def at(name):
        return os.path.join(directory, name)

    yield Planaria(work, at("planaria"))
    yield PostgreSQL(work, at("postgresql"))
    yield Redis(work, at("redis-small"), "1mb")
    yield Redis(work, at("redis-large"), "1gb")
    yield Rsync(work, at("rsync"))


def median(results, field):
    return statistics.median(result[field] for result in results)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--value-size", type=int, default=100)
    parser.add_argument("--changed", type=float, default=0.01, help="the part of the records that changes")
    parser.add_argument("--rounds", type=int, default=3, help="rounds, one system after the other in each")
    parser.add_argument("-o", "--output", choices=["table", "json"], default="table")
    work = parser.parse_args()
    results = {}
    for turn in range(work.rounds):
        for rival in rivals(work, ""):
            with tempfile.TemporaryDirectory(prefix="resync-") as directory:
                rival.directory = directory
                missing = rival.missing()
                if missing:
                    log(f"{rival.name}: left out ({missing})")
                    continue
                log(f"round {turn + 1} of {work.rounds}: {rival.name}")
                results.setdefault(rival.name, []).append(rival.measure())
    table = []
    for name, found in results.items():
        table.append(
            {
                "system": name,
                "way": found[-1]["way"],
                "seconds": median(found, "seconds"),
                "bytes": int(median(found, "bytes")),
                "full_copy_seconds": median(found, "full_copy_seconds"),
                "equal": all(result["equal"] for result in found),
            }
        )
    if work.output == "json":
        print(json.dumps(table))
    else:
        print(f"{'system':34} {'way':16} {'catching up':>12} {'moved':>12} {'full copy':>10}  equal")
        for line in table:
            print(
                f"{line['system']:34} {line['way']:16} {line['seconds']:>10.3f} s {line['bytes'] / 1e6:>9.1f} MB"
                f" {line['full_copy_seconds']:>8.2f} s  {'yes' if line['equal'] else 'NO'}"
            )
    if not all(line["equal"] for line in table):
        sys.exit(1)


if __name__ == "__main__":
    main()
