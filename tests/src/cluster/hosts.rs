use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use super::{Site, planaria};

/// Hosts with addresses of their own on one machine: network namespaces around one that routes between them. Needs the
/// rights of root, and `ip` of iproute2. They go when this is dropped.
#[derive(Debug)]
pub struct Hosts {
    prefix: String,
    count: u32,
}

/// One of them.
#[derive(Clone, Debug)]
pub struct Host {
    namespace: String,
    /// Its address.
    pub(super) ip: String,
    /// The certificates of the site: addresses that others can reach take some that were asked for.
    pub(super) tls: PathBuf,
}

impl Hosts {
    /// Lays cables between so many hosts and a router.
    ///
    /// # Panics
    ///
    /// If that is not permitted here.
    pub fn lay(count: u32) -> Self {
        static LAID: AtomicU32 = AtomicU32::new(0);
        let (process, laid) = (std::process::id(), LAID.fetch_add(1, Ordering::Relaxed));
        let hosts = Self { prefix: format!("planaria-{process}-{laid}"), count };
        let router = hosts.router();
        ip(&["netns", "add", &router]);
        for number in 1..=count {
            let (namespace, cable) = (hosts.namespace(number), format!("cable{number}"));
            let [host, gateway] = [2, 1].map(|last| address(number, last));
            ip(&["netns", "add", &namespace]);
            ip(&["-n", &router, "link", "add", &cable, "type", "veth", "peer", "eth0", "netns", &namespace]);
            ip(&["-n", &router, "address", "add", &format!("{gateway}/24"), "dev", &cable]);
            ip(&["-n", &router, "link", "set", &cable, "up"]);
            ip(&["-n", &namespace, "address", "add", &format!("{host}/24"), "dev", "eth0"]);
            ip(&["-n", &namespace, "link", "set", "eth0", "up"]);
            ip(&["-n", &namespace, "link", "set", "lo", "up"]);
            ip(&["-n", &namespace, "route", "add", "default", "via", &gateway]);
        }
        ip(&["netns", "exec", &router, "sysctl", "-q", "-w", "net.ipv4.ip_forward=1"]);
        hosts
    }

    /// The host of that number, from 1 on, with the certificates of a site.
    pub fn host(&self, number: u32, site: &Site) -> Host {
        assert!((1..=self.count).contains(&number), "there is no host {number}");
        let tls = site.path("home/planaria/tls");
        if !tls.exists() {
            // The first command that goes over the network makes them, whether anybody answers or not.
            site.run(&["--node", "127.0.0.1:1", "status"]);
        }
        Host { namespace: self.namespace(number), ip: address(number, 2), tls }
    }

    /// Lets nothing through from one host to another. The other direction stays as it is.
    pub fn cut(&self, from: u32, to: u32) {
        self.rule("add", from, to);
    }

    /// Lets everything through again that [`Hosts::cut`] has stopped.
    pub fn heal(&self, from: u32, to: u32) {
        self.rule("delete", from, to);
    }

    fn rule(&self, what: &str, from: u32, to: u32) {
        let [from, to] = [from, to].map(|number| address(number, 2));
        ip(&["-n", &self.router(), "rule", what, "from", &from, "to", &to, "blackhole"]);
    }

    fn router(&self) -> String {
        format!("{}-router", self.prefix)
    }

    fn namespace(&self, number: u32) -> String {
        format!("{}-{number}", self.prefix)
    }
}

/// The same in every net: nothing leads from one to another.
fn address(host: u32, last: u32) -> String {
    format!("10.77.{host}.{last}")
}

impl Drop for Hosts {
    fn drop(&mut self) {
        let namespaces = (1..=self.count).map(|number| self.namespace(number));
        for namespace in namespaces.chain([self.router()]) {
            // Whatever was not made cannot be removed.
            let _ = Command::new("ip").args(["netns", "delete", &namespace]).output();
        }
    }
}

impl Host {
    /// The program, run on this host.
    pub(super) fn program(&self) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace]).arg(planaria()).arg("--tls").arg(&self.tls);
        command
    }
}

fn ip(words: &[&str]) {
    let done = Command::new("ip").args(words).output().expect("ip of iproute2 is installed");
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "ip {}: {said}", words.join(" "));
}
