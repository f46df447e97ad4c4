use std::collections::BTreeMap;

use kobune_puller::{ClientCertificate, Metered, ProxyConfig, RegistryOptions};

use super::*;

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(Path::new("/etc/c.toml"), text).map_err(|error| error.to_string())
}

#[test]
fn an_empty_file_is_the_defaults() {
    assert_eq!(parse(""), Ok(Config::default()));
}

fn every_network_key() -> NetworkConfig {
    NetworkConfig {
        bridge: "kobune0".to_owned(),
        subnet: Some(Subnet {
            address: Ipv4Addr::new(10, 9, 0, 0),
            prefix: 24,
        }),
        mtu: Some(1400),
        engine: PortEngine::Forwarder,
    }
}

fn every_registry_key() -> RegistryConfig {
    RegistryConfig {
        policy: Some("/etc/kobune/policy.toml".into()),
        metered: Metered {
            rate: Some(512 << 10),
            daily: Some(200 << 20),
            windows: vec!["01:00-05:00".parse().expect("a window")],
            large: 20 << 20,
        },
        plain_http: vec!["registry.lan:5000".to_owned(), "[::1]:5000".to_owned()],
        hosts: BTreeMap::from([(
            "docker.io".to_owned(),
            RegistryOptions {
                mirrors: vec!["cache.lan:5000/hub".to_owned()],
                ca: Some("/etc/kobune/ca.pem".into()),
                client_certificate: Some(ClientCertificate {
                    certificate: "/etc/kobune/device.pem".into(),
                    key: "/etc/kobune/device.key".into(),
                }),
            },
        )]),
        proxy: Some(ProxyConfig {
            url: "http://proxy.lan:3128".to_owned(),
            no_proxy: ".lan".to_owned(),
        }),
        docker_config: Some("/etc/kobune/docker.json".into()),
        spool_from: Some(16 << 20),
    }
}

#[test]
fn every_key_is_read() {
    let config = parse(
        r#"
state_dir = "/data/kobune"
run_dir = "/run/k"
socket_group = "kobune"
stop_modules_on_exit = true
deployment = "/data/deployment.json"
programs_dir = "/opt/kobune"
cgroup_parent = "/edge"
module_policy = "/etc/kobune/modules.toml"
watchdog = "/dev/watchdog"
log_level = "debug"

[network]
bridge = "kobune0"
subnet = "10.9.0.0/24"
mtu = 1400
engine = "forwarder"

[registry]
plain_http = ["registry.lan:5000", "[::1]:5000"]
proxy = "http://proxy.lan:3128"
no_proxy = ".lan"
docker_config = "/etc/kobune/docker.json"
spool_from_mib = 16
policy = "/etc/kobune/policy.toml"
[registry.metered]
rate_kib = 512
daily_mib = 200
windows = ["01:00-05:00"]
large_mib = 20
[registry.host."docker.io"]
mirrors = ["cache.lan:5000/hub"]
ca = "/etc/kobune/ca.pem"
client_certificate = "/etc/kobune/device.pem"
client_key = "/etc/kobune/device.key"
"#,
    );
    let expected = Config {
        state_dir: "/data/kobune".into(),
        run_dir: "/run/k".into(),
        socket: "/run/k/kobune.sock".into(),
        socket_group: Some("kobune".to_owned()),
        stop_modules_on_exit: true,
        deployment: Some("/data/deployment.json".into()),
        programs_dir: Some("/opt/kobune".into()),
        cgroup_parent: "/edge".into(),
        module_policy: Some("/etc/kobune/modules.toml".into()),
        watchdog: Some("/dev/watchdog".into()),
        log_level: LogLevel::Debug,
        hub: None,
        network: every_network_key(),
        registry: every_registry_key(),
        ..Config::default()
    };
    assert_eq!(config, Ok(expected));
}

#[test]
fn ids_of_modules_are_where_the_file_says() {
    let of = |text| parse(text).map(|config| config.userns);
    let expected = UsernsConfig {
        remap: true,
        first: 100_000,
        size: 131_072,
    };
    let text = "[userns]\nremap = true\nfirst = 100000\nsize = 131072";
    assert_eq!(of(text), Ok(expected));
    let remapped = UsernsConfig {
        remap: true,
        ..UsernsConfig::default()
    };
    assert_eq!(of("[userns]\nremap = true"), Ok(remapped));
}

#[test]
fn unused_images_stay_for_ever_where_they_are_not_collected() {
    let of = |text| parse(text).map(|config| config.images.keep_unused);
    assert_eq!(of("[images]\ncollect = false\nkeep_days = 1"), Ok(None));
    assert_eq!(of("[images]\nkeep_days = 0"), Ok(Some(Duration::ZERO)));
    let reserve = parse("[images]\nreserve_mib = 16").map(|config| config.images.reserve);
    assert_eq!(reserve, Ok(Some(16 << 20)));
    let preloaded = |text| parse(text).map(|config| config.images.preloaded);
    let place = preloaded("[images]\npreloaded = \"/usr/share/kobune\"");
    assert_eq!(place, Ok(Some("/usr/share/kobune".into())));
}

/// Text, line and key, begin of the reason.
const COMPLAINTS: &[(&str, &str, &str)] = &[
    (
        "[userns]\nsize = 1000",
        "2, key \"userns.size\"",
        "1000 are fewer than 65536 ids",
    ),
    (
        "[userns]\nfirst = 4294901760",
        "2, key \"userns.first\"",
        "65536 ids from 4294901760 on are not between 65536 and 4294967295",
    ),
    (
        "[userns]\nfirst = 0",
        "2, key \"userns.first\"",
        "65536 ids from 0 on are not between",
    ),
    (
        "\nstate-dir = \"/x\"",
        "2, key \"state-dir\"",
        "unknown field `state-dir`",
    ),
    (
        "[netwrok]\nbridge = \"b\"",
        "1, key \"netwrok\"",
        "unknown field `netwrok`",
    ),
    (
        "\n[network]\nports = 1",
        "3, key \"network.ports\"",
        "unknown field `ports`",
    ),
    (
        "stop_modules_on_exit = \"yes\"",
        "1, key \"stop_modules_on_exit\"",
        "invalid type: string \"yes\", expected a boolean",
    ),
    (
        "log_level = \"loud\"",
        "1, key \"log_level\"",
        "unknown variant `loud`",
    ),
    (
        "# a\nstate_dir = \"var\"",
        "2, key \"state_dir\"",
        "path \"var\" is not absolute",
    ),
    (
        "run_dir = \"/run/../etc\"",
        "1, key \"run_dir\"",
        "path \"/run/../etc\" contains \"..\"",
    ),
    (
        "socket_group = \"\"",
        "1, key \"socket_group\"",
        "value is empty",
    ),
    (
        "[network]\n\nbridge = \"a-name-of-16-bytes\"",
        "3, key \"network.bridge\"",
        "\"a-name-of-16-bytes\" is no name",
    ),
    (
        "network.subnet = \"10.0.0.1/24\"",
        "1, key \"network.subnet\"",
        "\"10.0.0.1/24\" is no IPv4 subnet",
    ),
    (
        "network.mtu = 575",
        "1, key \"network.mtu\"",
        "575 is no MTU from 576 to 65535",
    ),
    (
        "network.subnet = \"10.0.0.0/33\"",
        "1, key \"network.subnet\"",
        "\"10.0.0.0/33\" is no IPv4 subnet",
    ),
    (
        "[network]\nengine = \"ipvs\"",
        "2, key \"network.engine\"",
        "unknown variant `ipvs`",
    ),
    (
        "[registry]\nplain_http = [\n  \"good\",\n  \"http://bad\",\n]",
        "4, key \"registry.plain_http\"",
        "\"http://bad\" is not of the form",
    ),
    (
        "[registry]\nproxy = \"user:secret@host\"",
        "2, key \"registry.proxy\"",
        "it is not of the form",
    ),
    (
        "[registry.host.\"a.io\"]\nmirrors = [\"b.io/x?y\"]",
        "2, key \"registry.host.\\\"a.io\\\".mirrors\"",
        "\"b.io/x?y\" is not of the form",
    ),
    (
        "[registry.host.\"a.io\"]\nclient_key = \"/k\"",
        "1, key \"registry.host.\\\"a.io\\\"\"",
        "client_certificate and client_key go together",
    ),
    (
        "[registry]\nplain_http = [\n  7,\n]",
        "3, key \"registry.plain_http\"",
        "invalid type: integer `7`",
    ),
    (
        "socket = \"/a\"\nsocket = \"/b\"",
        "2, key \"socket\"",
        "duplicate key",
    ),
    ("socket = ", "1, key \"socket\"", ""),
    ("log_level = \"info\"\njust words", "2", ""),
];

#[test]
fn complaints_name_file_line_and_key() {
    let long = format!("socket = \"/{}\"", "s".repeat(103));
    let too_long = (
        &*long,
        "1, key \"socket\"",
        "socket path has 104 bytes, more than 103",
    );
    for &(text, place, reason) in COMPLAINTS.iter().chain([&too_long]) {
        let error = parse(text).unwrap_err();
        let expected = format!("/etc/c.toml, line {place}: {reason}");
        assert!(
            error.starts_with(&expected),
            "{text:?}\n{error}\n{expected}"
        );
        assert!(!error.contains('\n'), "{error:?}");
    }
}

#[test]
fn only_the_default_file_may_be_missing() {
    let temp = tempfile::tempdir().unwrap();
    let missing = temp.path().join("none.toml");
    let error = load(Some(&missing)).unwrap_err();
    assert!(matches!(error, ConfigError::Read { path, .. } if path == missing));

    let error = load(Some(temp.path())).unwrap_err();
    assert!(matches!(error, ConfigError::Read { .. }), "a directory");

    let binary = temp.path().join("binary.toml");
    std::fs::write(&binary, [0xff, 0xfe]).unwrap();
    assert!(matches!(load(Some(&binary)), Err(ConfigError::Read { .. })));
}

#[test]
fn programs_are_found_beside_the_executable() {
    let temp = tempfile::tempdir().unwrap();
    let exe = temp.path().join("kobune");
    let mut config = Config::default();
    assert_eq!(config.find_program("kobune-test", &exe), None);
    let program = temp.path().join("kobune-test");
    std::fs::write(&program, "").unwrap();
    assert_eq!(config.find_program("kobune-test", &exe), Some(program));
    config.programs_dir = Some("/none".into());
    assert_eq!(config.find_program("kobune-test", &exe), None);
}

#[test]
fn iot_edges_file_gives_the_hub_and_its_other_keys_are_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.toml");
    assert_eq!(load_aziot(&path).unwrap(), None);
    let text = r#"
hostname = "my-device"
auto_reprovisioning_mode = "Dynamic"

[provisioning]
source = "manual"
connection_string = "HostName=h.net;DeviceId=d;SharedAccessKey=AQID"
dynamic_reprovisioning = false

[agent]
name = "edgeAgent"
type = "docker"

[agent.env]
RuntimeLogLevel = "debug"
UpstreamProtocol = "AmqpWs"

[moby_runtime]
uri = "unix:///var/run/docker.sock"
"#;
    std::fs::write(&path, text).unwrap();
    let hub = load_aziot(&path).unwrap().unwrap();
    assert_eq!(hub.upstream, crate::provisioning::Upstream::MqttWs);
    std::fs::write(&path, text.replace("manual", "tpm")).unwrap();
    let error = load_aziot(&path).unwrap_err();
    assert!(error.to_string().contains("line 6"), "{error}");
}
