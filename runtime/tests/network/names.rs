//! Hosts files.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use kobune_runtime::{Endpoint, Engine, ExtraHost, HostAddress};

use crate::lab::{endpoint, id, isolated};

#[test]
fn hosts_files_follow_the_modules_in_place() {
    isolated(
        module_path!(),
        "hosts_files_follow_the_modules_in_place",
        |lab| {
            let network = lab.open(Engine::NfTables);
            let path = |name: &str| Path::new("/run").join(format!("hosts-{name}"));
            let named = |name: &str| Endpoint {
                names: vec![name.to_owned(), format!("{name}-alias")],
                hosts_path: Some(path(name)),
                extra_hosts: vec![ExtraHost {
                    name: "host.docker.internal".to_owned(),
                    address: HostAddress::HostGateway,
                }],
                ..endpoint(name, &[])
            };
            let read = |name: &str| std::fs::read_to_string(path(name)).unwrap();
            let led = network.attach(&named("led")).unwrap();
            let line = format!("{}\tled led-alias\n", led.address.unwrap());
            assert!(read("led").ends_with(&line));
            let gateway = format!("{}\thost.docker.internal\n", led.gateway.unwrap());
            assert!(read("led").contains(&gateway));
            let inode = std::fs::metadata(path("led")).unwrap().ino();

            let stop = AtomicBool::new(false);
            thread::scope(|scope| {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        let text = read("led");
                        assert!(text.contains(&line), "{text:?}");
                        for line in text.lines().filter(|line| !line.is_empty()) {
                            let (address, names) = line.split_once('\t').unwrap();
                            assert!(address.parse::<std::net::IpAddr>().is_ok(), "{line:?}");
                            assert!(!names.is_empty(), "{text:?}");
                        }
                    }
                });
                for _ in 0..10 {
                    let button = network.attach(&named("button")).unwrap();
                    let peer = format!("{}\tbutton button-alias\n", button.address.unwrap());
                    assert!(read("led").contains(&peer));
                    assert!(read("button").contains(&line));
                    network.detach(&id("button")).unwrap();
                    assert!(
                        !read("led").contains("button"),
                        "names of stopped modules go"
                    );
                }
                stop.store(true, Ordering::Relaxed);
            });
            assert_eq!(std::fs::metadata(path("led")).unwrap().ino(), inode);

            let missing = Endpoint {
                hosts_path: Some("/nowhere/hosts".into()),
                ..named("lost")
            };
            let error = network.attach(&missing).unwrap_err();
            assert_eq!(error.to_string(), "cannot write /nowhere/hosts");
            assert_eq!(network.attachments(), [led], "undone");
            network.sweep(&[]).unwrap();
            assert_eq!(lab.leftovers(), [""; 0]);
        },
    );
}
