//! Files in a device's `/etc`, which others do not see.

use std::io::Write as _;
use std::process::Stdio;

use crate::Device;

/// Gives the device an `/etc` whose changes are its own and in memory. A directory of it that
/// is mounted already keeps its mount, as `/etc/hosts`.
const OWN: &str = r#"
set -e
[ -d /mnt/etc ] && exit 0
mount -t tmpfs tmpfs /mnt
mkdir /mnt/etc /mnt/work
mount -t overlay -o lowerdir=/etc,upperdir=/mnt/etc,workdir=/mnt/work overlay /etc
"#;

/// Writes the file `path`, which is below `/etc`, whole or not at all.
///
/// # Panics
/// Where it cannot be written.
pub fn write(device: &Device, path: &str, text: &str) {
    assert!(path.starts_with("/etc/"), "{path}");
    let own = device.command("sh").args(["-c", OWN]).status();
    assert!(own.expect("sh runs").success(), "no /etc of its own");
    let script = r#"mkdir -p "$(dirname "$1")" && cat > "$1.new" && mv "$1.new" "$1""#;
    let mut shell = device.command("sh");
    let _ = shell.args(["-c", script, "sh", path]).stdin(Stdio::piped());
    let mut shell = shell.spawn().expect("sh runs");
    let mut stdin = shell.stdin.take().expect("stdin is piped");
    stdin.write_all(text.as_bytes()).expect("it is read");
    drop(stdin);
    assert!(shell.wait().expect("sh ends").success(), "{path}");
}
