use std::ffi::OsString;

use super::super::args::{Arguments, Verb};
use super::*;

fn translate(line: &[&str]) -> Result<RunRequest, String> {
    let words = ["run"].iter().chain(line).map(OsString::from);
    let now = kobune_runtime::Timestamp::from_unix(0, 0);
    let arguments = Arguments::parse(words, now).map_err(|error| error.0)?;
    let Verb::Run(arguments) = arguments.verb else {
        panic!("{arguments:?}");
    };
    let around = Surroundings {
        directory: Path::new("/home/me"),
        variable: &|name| (name == "HOME").then(|| "/root".to_owned()),
        read: &|path| match path.to_str() {
            Some("env") => Ok("# comment\nA=1\n\n  B=two words\nHOME\nNONE\n".to_owned()),
            _ => Err(io::ErrorKind::NotFound.into()),
        },
    };
    request(&arguments, &around).map_err(|error| error.0)
}

fn create_options(request: &RunRequest) -> Value {
    let text = request.module["settings"]["createOptions"].as_str();
    serde_json::from_str(text.unwrap()).unwrap()
}

#[test]
fn what_is_typed_at_is_attached_to_later() {
    let request = translate(&["-it", "image"]).unwrap();
    let expected = serde_json::json!({ "OpenStdin": true, "Tty": true });
    assert_eq!(create_options(&request), expected);
}

#[test]
fn a_module_is_as_in_a_deployment() {
    let request = translate(&[
        "-d",
        "--restart=unless-stopped",
        "--pull",
        "never",
        "r.lan:5000/a/led:1.0",
        "blink",
        "--fast",
    ])
    .unwrap();
    assert_eq!(request.name, "led");
    assert_eq!(
        request.module,
        json!({
            "type": "docker", "status": "running",
            "restartPolicy": "always", "imagePullPolicy": "never",
            "settings": {
                "image": "r.lan:5000/a/led:1.0",
                "createOptions": "{\"Cmd\":[\"blink\",\"--fast\"]}",
            },
        })
    );
    let request = translate(&["--name", "x", "busybox@sha256:00"]).unwrap();
    assert_eq!(request.name, "x");
    assert_eq!(request.module["restartPolicy"], "never");
    assert_eq!(request.module["settings"]["createOptions"], "{}");
    assert_eq!(translate(&["a/busybox@sha256:00"]).unwrap().name, "busybox");
}

fn host(key: &str, value: impl Into<Value>) -> Value {
    json!({ "HostConfig": { key: value.into() } })
}

fn ports(value: Value) -> Value {
    host("PortBindings", value)
}

fn device(host: &str, inside: &str, access: &str) -> Value {
    json!([{ "PathOnHost": host, "PathInContainer": inside, "CgroupPermissions": access }])
}

/// Each line of options, parted by single spaces, gives the container options beside it.
fn assert_translates<const N: usize>(table: [(&str, Value); N]) {
    for (line, expected) in table {
        let mut words: Vec<&str> = line.split(' ').collect();
        words.push("image");
        let request = translate(&words).unwrap_or_else(|error| panic!("{line}: {error}"));
        assert_eq!(create_options(&request), expected, "{line}");
    }
}

#[test]
fn ports_and_names_translate_as_docker_does() {
    assert_translates([
        ("-p 80", ports(json!({ "80/tcp": [{ "HostPort": "" }] }))),
        (
            "-dp 8080:80",
            ports(json!({ "80/tcp": [{ "HostPort": "8080" }] })),
        ),
        (
            "-p53:53/UDP",
            ports(json!({ "53/udp": [{ "HostPort": "53" }] })),
        ),
        (
            "-p 127.0.0.1:1:2 --publish=[::1]:1:2",
            ports(
                json!({ "2/tcp": [{ "HostIp": "127.0.0.1", "HostPort": "1" }, { "HostIp": "::1", "HostPort": "1" }] }),
            ),
        ),
        (
            "-p 127.0.0.1::2",
            ports(json!({ "2/tcp": [{ "HostIp": "127.0.0.1", "HostPort": "" }] })),
        ),
        (
            "-p 8000-8001:80-81",
            ports(
                json!({ "80/tcp": [{ "HostPort": "8000" }], "81/tcp": [{ "HostPort": "8001" }] }),
            ),
        ),
        ("--network host", host("NetworkMode", json!("host"))),
        ("--net none", host("NetworkMode", json!("none"))),
        (
            "--add-host a:10.0.0.1 --add-host b=::1",
            host("ExtraHosts", json!(["a:10.0.0.1", "b:::1"])),
        ),
    ]);
}

#[test]
fn process_translate_as_docker_does() {
    assert_translates([
        (
            "-e A=1 -e B= -e HOME -e NONE",
            json!({ "Env": ["A=1", "B=", "HOME=/root"] }),
        ),
        (
            "-e A=3 --env-file env",
            json!({ "Env": ["A=1", "B=two words", "HOME=/root", "A=3"] }),
        ),
        (
            "-h box -u 1:2 -w /w --stop-timeout 30 --stop-signal SIGINT",
            json!({ "Hostname": "box", "User": "1:2", "WorkingDir": "/w", "StopTimeout": 30, "StopSignal": "SIGINT" }),
        ),
        ("--entrypoint /bin/sh", json!({ "Entrypoint": ["/bin/sh"] })),
        ("--entrypoint=", json!({ "Entrypoint": [""] })),
        (
            "--label a=b -l c",
            json!({ "Labels": { "a": "b", "c": "" } }),
        ),
    ]);
}

#[test]
fn files_translate_as_docker_does() {
    assert_translates([
        (
            "-v data:/data -v /a:/b:ro -v ./x:/x",
            host("Binds", json!(["data:/data", "/a:/b:ro", "/home/me/x:/x"])),
        ),
        ("-v /data", json!({ "Volumes": { "/data": {} } })),
        (
            "--tmpfs /run --tmpfs /tmp:size=64m,mode=1777",
            host("Tmpfs", json!({ "/run": "", "/tmp": "size=64m,mode=1777" })),
        ),
        (
            "--mount type=bind,source=/a,target=/b,readonly",
            host(
                "Mounts",
                json!([{ "Type": "bind", "Source": "/a", "Target": "/b", "ReadOnly": true }]),
            ),
        ),
        (
            "--mount type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=700",
            host(
                "Mounts",
                json!([{ "Type": "tmpfs", "Target": "/t", "TmpfsOptions": { "SizeBytes": 1_048_576, "Mode": 448 } }]),
            ),
        ),
        (
            "--mount src=data,dst=/d",
            host(
                "Mounts",
                json!([{ "Type": "volume", "Source": "data", "Target": "/d" }]),
            ),
        ),
    ]);
}

#[test]
fn devices_and_privileges_translate_as_docker_does() {
    assert_translates([
        (
            "--device /dev/i2c-1",
            host("Devices", device("/dev/i2c-1", "/dev/i2c-1", "rwm")),
        ),
        (
            "--device /dev/a:r",
            host("Devices", device("/dev/a", "/dev/a", "r")),
        ),
        (
            "--device /dev/a:/dev/b",
            host("Devices", device("/dev/a", "/dev/b", "rwm")),
        ),
        (
            "--device /dev/a:/dev/b:mr",
            host("Devices", device("/dev/a", "/dev/b", "mr")),
        ),
        (
            "--device-cgroup-rule c_1:3_mr",
            host("DeviceCgroupRules", json!(["c_1:3_mr"])),
        ),
        (
            "--privileged --read-only",
            json!({ "HostConfig": { "Privileged": true, "ReadonlyRootfs": true } }),
        ),
        ("--privileged=false", host("Privileged", json!(false))),
        (
            "--cap-add NET_ADMIN --cap-add SYS_TIME --cap-drop ALL",
            json!({ "HostConfig": { "CapAdd": ["NET_ADMIN", "SYS_TIME"], "CapDrop": ["ALL"] } }),
        ),
        (
            "--group-add i2c --security-opt no-new-privileges --dns 1.1.1.1 --init",
            json!({ "HostConfig": { "GroupAdd": ["i2c"], "SecurityOpt": ["no-new-privileges"], "Dns": ["1.1.1.1"], "Init": true } }),
        ),
    ]);
}

#[test]
fn limits_translate_as_docker_does() {
    assert_translates([
        (
            "-m 64m --cpus .5 --pids-limit 100 --shm-size 1KiB",
            json!({ "HostConfig": { "Memory": 67_108_864, "NanoCpus": 500_000_000, "PidsLimit": 100, "ShmSize": 1024 } }),
        ),
        ("--cpus 1.25", host("NanoCpus", json!(1_250_000_000))),
        (
            "--log-opt max-size=1m --log-opt max-file=2",
            host(
                "LogConfig",
                json!({ "Type": "json-file", "Config": { "max-size": "1m", "max-file": "2" } }),
            ),
        ),
        (
            "--log-driver ring --log-opt max-size=1m",
            host(
                "LogConfig",
                json!({ "Type": "ring", "Config": { "max-size": "1m" } }),
            ),
        ),
        (
            "--ulimit nofile=64:128 --ulimit core=-1",
            host(
                "Ulimits",
                json!([{ "Name": "nofile", "Soft": 64, "Hard": 128 }, { "Name": "core", "Soft": -1, "Hard": -1 }]),
            ),
        ),
        (
            "--sdnotify container",
            host(
                "Annotations",
                json!({ "io.containers.sdnotify": "container" }),
            ),
        ),
        ("--sdnotify ignore", json!({})),
    ]);
}

#[test]
fn wrong_values_are_named() {
    for (line, part) in [
        (
            "-p 0:80",
            "invalid value \"0:80\" of --publish: \"0\" is no port",
        ),
        ("-p 70000", "\"70000\" is no port"),
        ("-p 80/icmp", "unknown protocol \"icmp\""),
        ("-p 1-3:1-2", "differ in length"),
        ("-p 3-1:3-1", "\"3-1\" is no port"),
        ("-p host:1:2", "\"host\" is no address"),
        ("-p 1:2:3:4:5", "\"1:2:3\" is no address"),
        ("-v data", "expected an absolute path inside"),
        ("-v a:b", "expected SOURCE:INSIDE"),
        ("-v ~/a:/b", "for the shell to expand"),
        ("-e =x", "has no name"),
        ("--env-file missing", "cannot read --env-file missing"),
        ("--device i2c", "expected absolute paths"),
        ("--device /a:/b:ro", "\"ro\" is no set"),
        ("-m 64q", "expected a size"),
        ("-m 99999999999g", "expected a size"),
        ("--cpus .", "expected a number"),
        ("--cpus 1,5", "expected a number"),
        ("--pids-limit many", "expected a number"),
        ("--mount type=nfs,dst=/a", "unknown type \"nfs\""),
        ("--mount type=bind,dst=/a", "no source"),
        ("--mount type=volume", "no target"),
        ("--mount dst=/a,size=3", "unknown key \"size\""),
        ("--add-host a", "expected NAME:IP"),
        ("--log-opt max-size", "expected KEY=VALUE"),
        ("--sdnotify conmon", "expected container or ignore"),
        ("--ulimit nofile", "expected NAME=SOFT"),
        ("--restart sometimes", "of --restart"),
        ("--pull maybe", "of --pull"),
        ("--privileged=maybe", "expected true or false"),
        ("--rm", "option \"--rm\" is not offered"),
        ("--rm", "kobune rm"),
        ("--gpus all", "unknown option \"--gpus\""),
        ("--username me", "go together"),
    ] {
        let mut words: Vec<&str> = line.split(' ').collect();
        words.push("image");
        let error = translate(&words).unwrap_err();
        assert!(error.contains(part), "{line}: {error}");
    }
    assert_eq!(translate(&["-d"]), Err("no image named".to_owned()));
}
