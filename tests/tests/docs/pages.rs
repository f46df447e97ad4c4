//! Runs the commands of a page in their order, on a device of the page's own.
//!
//! What a reader has at hand is in `NAME.sh` beside this file, a script of the shell: its
//! beginning is run first, and what follows a line `## COMMAND` before the block that begins so.

use std::fs;
use std::path::Path;

use kobune_fixtures::{Content, Options, Platform, Registry, module_image};
use kobune_tests::root::repository;
use kobune_tests::{Device, Programs, Root, privileged, tutorial};
use serde_json::json;

use crate::blocks::{Block, How, commands};

/// Pages with commands that a test below runs.
pub(crate) const TESTED: &[&str] = &[
    "README.md",
    "docs/check.md",
    "docs/hub.md",
    "docs/images.md",
    "docs/iot-hub.md",
    "docs/operations.md",
    "docs/porting.md",
    "docs/quick-start.md",
    "docs/service.md",
    "docs/templates.md",
];

/// Names that pages call machines by, and that lead to the device itself.
const HOSTS: &str = "127.0.0.1 localhost hub.example registry.example.com\n";

/// What stage directions may use.
const HELPERS: &str = r#"
wait_for() {
    n=600
    until "$@" > /dev/null 2>&1; do
        n=$((n - 1))
        [ $n -gt 0 ] || { echo "never: $*" >&2; exit 1; }
        sleep 0.1
    done
}
agent() {
    kobune daemon > /root/agent.log 2>&1 &
    wait_for kobune list
}
hub() {
    kobune-hub serve --state /var/lib/kobune-hub > /root/hub.log 2>&1 &
    wait_for kobune-hub device list
}
"#;

/// The stage directions of a page: what is run first, and before which blocks what else.
fn directions(page: &str) -> (String, Vec<(String, String)>) {
    let stem = Path::new(page).file_stem().expect("a name");
    let file = format!("tests/docs/{}.sh", stem.display());
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(&file));
    let text = text.unwrap_or_else(|error| panic!("{file}: {error}"));
    let mut parts = text.split("\n## ");
    let first = parts.next().expect("a beginning").to_owned();
    let others = parts.map(|part| {
        let (line, script) = part.split_once('\n').expect("a script");
        (line.to_owned(), script.to_owned())
    });
    (first, others.collect())
}

/// All of it as one script, which says of each block that it comes.
fn script(page: &str, blocks: &[Block]) -> String {
    let (mut script, mut others) = directions(page);
    for block in blocks.iter().filter(|b| !matches!(b.how, How::NotRun(_))) {
        let first = block.text.lines().next().expect("a command");
        if let Some(at) = others.iter().position(|(line, _)| line == first) {
            script += &others.remove(at).1;
        }
        script += &format!("\necho '=== {page}:{}' >&2\n", block.line);
        script += &match block.how {
            How::Background => format!("( {}) > /root/background.log 2>&1 &\n", block.text),
            _ => block.text.clone(),
        };
    }
    assert!(others.is_empty(), "no block begins with {others:?}");
    script
}

/// What registries are on the device: one that stands for public ones, and a private one.
fn registries(device: &Device) -> [Registry; 2] {
    let program = |name: &str| fs::read(Programs::built().fixture(name)).expect("a program");
    let image = |name: &str, ports| module_image(Platform::host(), name, &program(name), ports);
    let mut public = Content::new();
    public.add_image("library/nginx", "latest", &image("led", &["80/tcp"]));
    public.add_image("library/hello-world", "latest", &image("led", &[]));
    let mut private = Content::new();
    private.add_image("led", "1.0", &image("led", &["80/tcp"]));
    device.in_network(|| {
        let options = Options {
            listen: ([127, 0, 0, 1], 80).into(),
            ..Options::with_token(tutorial::USER, tutorial::PASSWORD)
        };
        let public = Registry::start(public, Options::default());
        let private = Registry::start(private, options);
        [public, private].map(|registry| registry.expect("a registry"))
    })
}

/// What the page's reader has: programs, names, registries, a directory of his own.
fn stage(root: &Root<'_>, public: &Registry) {
    root.install(Programs::built());
    root.script("/usr/bin/sudo", "#!/bin/sh\nexec \"$@\"\n");
    let configuration = format!(
        "[registry]\nplain_http = [\"registry.example.com\"]\n\
         [registry.host.\"docker.io\"]\nmirrors = [\"{}\"]\n",
        public.addr()
    );
    let repository = repository();
    root.script("/root/registries.toml", &configuration);
    root.script("/etc/hosts", HOSTS);
    let repository = repository.display();
    root.must(&format!(
        "cat /root/registries.toml >> /etc/kobune/config.toml; mkdir /root/page; \
         ln -s {repository}/tests /root/page; \
         install -D -m 755 {repository}/packaging/init/kobune /etc/init.d/kobune"
    ));
    let led = json!({
        "type": "docker",
        "status": "running",
        "restartPolicy": "always",
        "settings": { "image": "docker.io/library/nginx:latest" },
    });
    let deployment = tutorial::set_modules(&json!({ "led": led })).to_string();
    root.script("/root/page/deployment.json", &(deployment + "\n"));
}

/// Runs a page from its first command to its last.
fn run(page: &str) {
    if !privileged() {
        return;
    }
    let text = fs::read_to_string(repository().join(page)).expect("the page");
    let blocks = commands(&text).expect("blocks");
    let script = script(page, &blocks);
    let device = Device::new();
    let [public, _private] = registries(&device);
    let root = Root::new(&device);
    stage(&root, &public);
    let user = format!(
        "PUBLIC={}; PASSWORD={}; USER={}; BUILT={}; cd /root/page\n",
        public.addr(),
        tutorial::PASSWORD,
        tutorial::USER,
        Programs::built().agent.display()
    );
    root.script("/root/page.sh", &format!("set -e\n{user}{HELPERS}{script}"));
    let output = root.run("exec sh /root/page.sh < /dev/null > /root/said 2> /root/errors");
    // Not every page has logs.
    let logs = root.run("tail -n 40 /root/said /root/errors /root/*.log");
    assert_eq!(output.code, 0, "{}", logs.stdout);
}

macro_rules! pages {
    ($($test:ident $page:literal)*) => {
        $(#[test]
        fn $test() {
            assert!(TESTED.contains(&$page));
            run($page);
        })*

        #[test]
        fn every_page_has_its_test() {
            assert_eq!(TESTED, [$($page),*]);
        }
    };
}

pages! {
    the_readme_runs "README.md"
    checks_run "docs/check.md"
    a_hub_of_your_own_runs "docs/hub.md"
    images_run "docs/images.md"
    iot_hub_runs "docs/iot-hub.md"
    operations_run "docs/operations.md"
    porting_runs "docs/porting.md"
    the_quick_start_runs "docs/quick-start.md"
    services_run "docs/service.md"
    templates_run "docs/templates.md"
}
