use std::fmt;

/// What the holder of a certificate may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum Role {
    /// Accept connections as a node.
    Node = 1,
    /// Send requests of the client protocol.
    Client = 2,
    /// Follow, feed and clone databases.
    Replica = 4,
    /// Change what a node hosts: create, promote and delete clones and replicas.
    Control = 8,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 4] = [Self::Node, Self::Client, Self::Replica, Self::Control];

    /// Its name, as in the certificate.
    pub fn name(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Client => "client",
            Self::Replica => "replica",
            Self::Control => "control",
        }
    }

    /// The URI that carries it in a certificate, as a subject alternative name.
    pub(crate) fn uri(self) -> String {
        format!("planaria://role/{}", self.name())
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of roles.
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Roles(u8);

impl Roles {
    /// All roles.
    pub const ALL: Self = Self(0b1111);

    /// The set of `roles`.
    pub fn of(roles: &[Role]) -> Self {
        Self(roles.iter().fold(0, |bits, role| bits | *role as u8))
    }

    /// Whether `role` is among them.
    pub fn has(self, role: Role) -> bool {
        self.0 & role as u8 != 0
    }

    /// The roles.
    pub fn iter(self) -> impl Iterator<Item = Role> {
        Role::ALL.into_iter().filter(move |role| self.has(*role))
    }

    /// The roles that the URIs of a certificate name; URIs that name none are left out.
    pub(crate) fn from_uris<'a>(uris: impl Iterator<Item = &'a str>) -> Self {
        let mut roles = Self::default();
        for uri in uris {
            roles.0 |= Role::ALL
                .into_iter()
                .find(|role| role.uri() == uri)
                .map_or(0, |role| role as u8);
        }
        roles
    }
}

impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.iter().map(Role::name).collect();
        if names.is_empty() {
            f.write_str("no role")
        } else {
            f.write_str(&names.join(", "))
        }
    }
}

impl fmt::Debug for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Roles({self})")
    }
}

/// What a connection is for: its name travels in the TLS handshake (ALPN), and decides which role it takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Service {
    /// The client protocol: requests and answers.
    Client,
    /// Replica sessions: live stream, refresh, clones.
    Replica,
}

impl Service {
    /// Every service.
    pub const ALL: [Self; 2] = [Self::Client, Self::Replica];

    /// Its name in the handshake, with the version of the protocol.
    pub fn alpn(self) -> &'static [u8] {
        match self {
            Self::Client => b"planaria-client/1",
            Self::Replica => b"planaria-replica/1",
        }
    }

    /// The service of that name.
    pub(crate) fn from_alpn(alpn: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|service| service.alpn() == alpn)
    }

    /// Whether a holder of `roles` may open it.
    pub fn admits(self, roles: Roles) -> bool {
        match self {
            Self::Client => roles.has(Role::Client) || roles.has(Role::Control),
            Self::Replica => roles.has(Role::Replica),
        }
    }

    /// The role that it takes, in words.
    pub(crate) fn role_wanted(self) -> &'static str {
        match self {
            Self::Client => "client or control",
            Self::Replica => "replica",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Role, Roles, Service};

    #[test]
    fn roles_survive_their_uris_and_strangers_are_left_out() {
        let roles = Roles::of(&[Role::Client, Role::Node]);
        let mut uris: Vec<_> = roles.iter().map(Role::uri).collect();
        uris.push("https://example.org/role/replica".to_owned());
        assert_eq!(Roles::from_uris(uris.iter().map(String::as_str)), roles);
        assert!(Service::Client.admits(roles) && !Service::Replica.admits(roles));
    }
}
