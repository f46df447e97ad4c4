//! What a module's `/etc/hosts` and `/etc/resolv.conf` say.

use std::fmt::Write as _;
use std::fs::{OpenOptions, Permissions};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;

use crate::{Dns, ExtraHost, HostAddress};

/// The lines every hosts file starts with, as Docker writes them.
const LOCALHOST: &str = "\
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::0\tip6-localnet
ff00::0\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
";

/// Google's public resolvers: Docker's fallback where a host names only resolvers that a
/// module cannot reach.
const PUBLIC_RESOLVERS: [&str; 2] = ["8.8.8.8", "8.8.4.4"];

/// Mode of a file that every user of a module reads.
const MODE: u32 = 0o644;

/// Longest old content that is covered at once: a module may make its file of any length,
/// and the agent shall not have to hold that.
const MAX_PADDED: usize = 1 << 20;

/// An address and the names that lead to it; the first is canonical.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostEntry<'a> {
    /// Address.
    pub address: Ipv4Addr,
    /// Names; an entry without any writes no line.
    pub names: &'a [String],
}

/// The hosts file of a module: localhost, `extra_hosts`, itself (absent without an
/// address), its `peers`. The first line of a name wins, so the module's own extra hosts
/// come before its peers.
///
/// `host-gateway` entries are left out where there is no `gateway`.
#[must_use]
pub fn hosts_file(
    own: Option<HostEntry<'_>>,
    peers: &[HostEntry<'_>],
    extra_hosts: &[ExtraHost],
    gateway: Option<Ipv4Addr>,
) -> String {
    let mut text = LOCALHOST.to_owned();
    for extra in extra_hosts {
        let address = match extra.address {
            HostAddress::Ip(address) => Some(address),
            HostAddress::HostGateway => gateway.map(IpAddr::V4),
        };
        if let Some(address) = address {
            push_line(&mut text, address, std::slice::from_ref(&extra.name));
        }
    }
    for entry in own.iter().chain(peers) {
        push_line(&mut text, IpAddr::V4(entry.address), entry.names);
    }
    text
}

fn push_line(text: &mut String, address: IpAddr, names: &[String]) {
    if !names.is_empty() {
        writeln!(text, "{address}\t{}", names.join(" "))
            .expect("invariant: writing to a string does not fail");
    }
}

/// Gives the file at `path`, created if missing, the content `content` and the mode 0644,
/// without replacing its inode: a bind mount of it pins the inode, so a rename would not be
/// seen inside. What the module itself wrote into it is lost.
///
/// One write carries the whole content, padded with newlines to the old length, and then
/// the padding is cut off: a reader meets no torn last line in between.
///
/// # Errors
/// As opening, writing and truncating; the file then holds a mix of old and new.
pub fn write_in_place(path: &Path, content: &str) -> io::Result<()> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)?;
    let metadata = file.metadata()?;
    if metadata.mode() & 0o777 != MODE {
        file.set_permissions(Permissions::from_mode(MODE))?;
    }
    let mut bytes = content.as_bytes().to_vec();
    let old = usize::try_from(metadata.len()).unwrap_or(usize::MAX);
    if (bytes.len()..MAX_PADDED).contains(&old) {
        bytes.resize(old, b'\n');
    }
    file.write_all_at(&bytes, 0)?;
    file.set_len(content.len() as u64)
}

/// The `/etc/resolv.conf` of a module: the first of `sources` that names a resolver a
/// module can reach, without those it cannot.
///
/// Modules have IPv4 and a loopback of their own, so loopback and IPv6 resolvers are
/// dropped. `sources` are the host's `/etc/resolv.conf` and then, for hosts where a local
/// stub answers, `/run/systemd/resolve/resolv.conf`. Where no source has a reachable
/// resolver the result is the first one's search list and options with public resolvers
/// (8.8.8.8, 8.8.4.4), as with Docker.
#[must_use]
pub fn resolv_conf(sources: &[&str]) -> String {
    let reachable = |source: &&&str| source.lines().any(|line| resolver(line) == Some(true));
    let chosen = sources.iter().find(reachable);
    let mut text = String::new();
    for line in chosen
        .or(sources.first())
        .map_or("", |source| source)
        .lines()
    {
        if resolver(line) != Some(false) {
            text.push_str(line);
            text.push('\n');
        }
    }
    if chosen.is_none() {
        for resolver in PUBLIC_RESOLVERS {
            text.push_str("nameserver ");
            text.push_str(resolver);
            text.push('\n');
        }
    }
    text
}

/// The `resolv.conf` `host`, with what `dns` says in place of it.
pub(crate) fn with_dns(host: &str, dns: &Dns) -> String {
    let replaced = |line: &str| match line.split_whitespace().next() {
        Some("nameserver") => !dns.servers.is_empty(),
        Some("search" | "domain") => !dns.search.is_empty(),
        Some("options") => !dns.options.is_empty(),
        _ => false,
    };
    let mut text = String::new();
    for line in host.lines().filter(|line| !replaced(line)) {
        text.push_str(line);
        text.push('\n');
    }
    let mut push = |keyword: &str, words: &str| {
        writeln!(text, "{keyword} {words}").expect("invariant: writing to a string does not fail");
    };
    for server in &dns.servers {
        push("nameserver", &server.to_string());
    }
    // A single dot is Docker's word for searching nowhere.
    if !dns.search.is_empty() && dns.search != ["."] {
        push("search", &dns.search.join(" "));
    }
    if !dns.options.is_empty() {
        push("options", &dns.options.join(" "));
    }
    text
}

/// Whether a line names a resolver that a module can reach; `None` for any other line.
fn resolver(line: &str) -> Option<bool> {
    let mut words = line.split_whitespace();
    if words.next() != Some("nameserver") {
        return None;
    }
    let address = words.next().and_then(|word| word.parse::<Ipv4Addr>().ok());
    Some(address.is_some_and(|address| !address.is_loopback() && !address.is_unspecified()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_file_lists_localhost_extras_self_and_peers_in_that_order() {
        let own = ["led".to_owned(), "led-host".to_owned()];
        let peer = ["button".to_owned()];
        let nameless: [String; 0] = [];
        let entry = |n, names| HostEntry {
            address: Ipv4Addr::new(10, 0, 0, n),
            names,
        };
        let extra = |name: &str, address| ExtraHost {
            name: name.to_owned(),
            address,
        };
        let extras = [
            extra("db", HostAddress::Ip("fd00::5".parse().unwrap())),
            extra("host.docker.internal", HostAddress::HostGateway),
        ];
        let peers = [entry(3, &peer[..]), entry(4, &nameless[..])];
        let text = hosts_file(
            Some(entry(2, &own[..])),
            &peers,
            &extras,
            Some(Ipv4Addr::new(10, 0, 0, 1)),
        );
        let expected = "fd00::5\tdb\n10.0.0.1\thost.docker.internal\n\
                        10.0.0.2\tled led-host\n10.0.0.3\tbutton\n";
        assert_eq!(text, format!("{LOCALHOST}{expected}"));
        let text = hosts_file(None, &[], &extras[1..], None);
        assert_eq!(text, LOCALHOST, "no gateway, no host-gateway entry");
    }

    #[test]
    fn writing_in_place_keeps_the_inode_and_leaves_no_tail() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hosts");
        write_in_place(&path, "one\ntwo\n").unwrap();
        let inode = std::fs::metadata(&path).unwrap().ino();
        for content in ["one\ntwo\nthree\n", "x\n", ""] {
            write_in_place(&path, content).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
        }
        OpenOptions::new()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(1 << 40)
            .unwrap();
        write_in_place(&path, "huge no more\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "huge no more\n");
        let metadata = std::fs::metadata(&path).unwrap();
        assert_eq!((metadata.ino(), metadata.mode() & 0o777), (inode, 0o644));
    }

    #[test]
    fn resolv_conf_keeps_only_reachable_resolvers() {
        let stub = "nameserver 127.0.0.53\nsearch lan\n";
        let real = "# real\nnameserver 192.168.1.1\nnameserver fe80::1\noptions edns0\n";
        let public = "search lan\nnameserver 8.8.8.8\nnameserver 8.8.4.4\n";
        for (sources, expected) in [
            (
                &[real][..],
                "# real\nnameserver 192.168.1.1\noptions edns0\n",
            ),
            (
                &[stub, real][..],
                "# real\nnameserver 192.168.1.1\noptions edns0\n",
            ),
            (&[stub][..], public),
            (
                &["nameserver ::1\nnameserver 10.0.0.1"][..],
                "nameserver 10.0.0.1\n",
            ),
            (&[][..], "nameserver 8.8.8.8\nnameserver 8.8.4.4\n"),
        ] {
            assert_eq!(resolv_conf(sources), expected, "{sources:?}");
        }
    }
}
