use super::args::{ApplyArguments, CheckArguments, LogsArguments, Preload};
use super::help::Topic;
use super::*;
use crate::api::client::LogParameters;
use crate::api::wire::StoreRequest;

fn parse(line: &[&str]) -> Result<Arguments, String> {
    let now = Timestamp::from_unix(1_000_000, 0);
    Arguments::parse(line.iter().map(OsString::from), now).map_err(|error| error.0)
}

#[test]
fn config_verbs_parse() {
    for (line, verb) in [
        (&["config", "apply"][..], Verb::Config(ConfigVerb::Apply)),
        (
            &["config", "mp", "-f", "-c", "HostName=h"],
            Verb::Config(ConfigVerb::Manual {
                connection_string: "HostName=h".to_owned(),
                force: true,
            }),
        ),
        (&["config", "--help"], Verb::Help(Topic::Config)),
    ] {
        assert_eq!(parse(line).map(|arguments| arguments.verb), Ok(verb));
    }
    for bad in [
        &["config"][..],
        &["config", "mp"],
        &["config", "x"],
        &["config", "apply", "-c", "x"],
    ] {
        parse(bad).unwrap_err();
    }
}

#[test]
fn checks_are_skipped_by_id_and_ids_have_to_be_right() {
    let line = [
        "check",
        "--skip",
        "hub,ports",
        "--skip",
        "clock",
        "--warnings-as-errors",
    ];
    let arguments = CheckArguments {
        list: false,
        skip: ["hub", "ports", "clock"].map(str::to_owned).to_vec(),
        strict: true,
    };
    assert_eq!(parse(&line).unwrap().verb, Verb::Check(arguments));
    for bad in [&["check", "--skip", "hubb"][..], &["check", "hub"]] {
        parse(bad).unwrap_err();
    }
}

#[test]
fn verbs_parse() {
    let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    let apply = |file: &str, detach| {
        Verb::Apply(ApplyArguments {
            file: file.into(),
            env_files: Vec::new(),
            detach,
        })
    };
    let all_logs = Verb::Logs(LogsArguments {
        module: "led".to_owned(),
        parameters: LogParameters {
            tail: Some(5),
            since: Some("1 day".to_owned()),
            until: Some("10m".to_owned()),
            follow: true,
        },
        timestamps: true,
    });
    let plain_logs = Verb::Logs(LogsArguments {
        module: "led".to_owned(),
        ..LogsArguments::default()
    });
    for (line, verb) in [
        (&["daemon"][..], Verb::Daemon),
        (&["list"], Verb::List),
        (&["images"], Verb::Images),
        (&["version"], Verb::Version),
        (&["--version"], Verb::Version),
        (&["help"], Verb::Help(Topic::Overview)),
        (&["-h"], Verb::Help(Topic::Overview)),
        (&["help", "run"], Verb::Help(Topic::Run)),
        (&["run", "--help"], Verb::Help(Topic::Run)),
        (&["logs", "-h"], Verb::Help(Topic::Logs)),
        (&["list", "--help"], Verb::Help(Topic::Overview)),
        (&["restart", "a", "b"], Verb::Restart(names(&["a", "b"]))),
        (&["stop", "a"], Verb::Stop(names(&["a"]))),
        (&["rm", "--", "-a"], Verb::Remove(names(&["-a"]))),
        (&["inspect", "a"], Verb::Inspect(names(&["a"]))),
        (&["apply", "-"], apply("-", false)),
        (&["apply", "-d", "f.json"], apply("f.json", true)),
        (&["apply", "-f", "f.json", "--wait"], apply("f.json", false)),
        (&["apply", "f.json", "--wait=false"], apply("f.json", true)),
        (
            &[
                "logs",
                "led",
                "-ft",
                "-n5",
                "--since",
                "1 day",
                "--until=10m",
            ],
            all_logs,
        ),
        (&["logs", "--tail", "all", "led"], plain_logs),
    ] {
        assert_eq!(parse(line).map(|a| a.verb), Ok(verb), "{line:?}");
    }
}

#[test]
fn images_are_loaded_into_a_root_file_system_without_a_daemon() {
    let preload = Verb::Preload(Preload {
        root: "r".into(),
        file: "/a.tar".into(),
        platform: "linux/arm/v7".parse().unwrap(),
    });
    let line = [
        "image",
        "load",
        "--root=r",
        "--platform=linux/arm/v7",
        "/a.tar",
    ];
    assert_eq!(parse(&line).map(|a| a.verb), Ok(preload));
    for bad in [
        &["image", "load", "--platform=linux/arm/v7", "/a.tar"][..],
        &["image", "load", "--root=r", "--platform=x", "/a.tar"],
        &["image", "load", "--root=r"],
        &["image", "load", "/a.tar", "/b.tar"],
        &["image", "save", "-o", "/a.tar"],
        &["image", "save", "b:1"],
        &["image", "save", "-o", "/a.tar", "--format=zip", "b:1"],
    ] {
        parse(bad).unwrap_err();
    }
}

#[test]
fn verbs_of_images_parse() {
    let verify = |repair| Verb::Store(StoreRequest::Verify { repair });
    let load = |path: &str| Verb::Store(StoreRequest::Load { path: path.into() });
    let save = |directory| {
        Verb::Store(StoreRequest::Save {
            images: vec!["b:1".to_owned()],
            path: "/a.tar".into(),
            directory,
        })
    };
    let prune = |all| Verb::Store(StoreRequest::Prune { all });
    let rmi = |images: &[&str]| {
        let images = images.iter().map(|&image| image.to_owned()).collect();
        Verb::Store(StoreRequest::Remove {
            images,
            force: true,
        })
    };
    for (line, verb) in [
        (&["images", "verify"][..], verify(false)),
        (&["images", "verify", "--repair"], verify(true)),
        (&["images", "repair"], verify(true)),
        (&["rmi", "-f", "a:1", "b"], rmi(&["a:1", "b"])),
        (&["image", "load", "-i", "/a.tar"], load("/a.tar")),
        (&["image", "load", "/a.tar"], load("/a.tar")),
        (&["image", "save", "-o", "/a.tar", "b:1"], save(false)),
        (
            &["image", "save", "b:1", "--format=oci-dir", "-o", "/a.tar"],
            save(true),
        ),
        (&["prune"], prune(false)),
        (&["prune", "-a"], prune(true)),
    ] {
        assert_eq!(parse(line).map(|a| a.verb), Ok(verb), "{line:?}");
    }
    for bad in [
        &["images", "x"][..],
        &["images", "--repair"],
        &["rmi"],
        &["prune", "x"],
        &["image"],
        &["image", "load"],
        &["bundle", "create", "d.json"],
        &["bundle", "create", "-o", "b"],
        &["bundle", "apply"],
        &["bundle", "x", "y"],
    ] {
        parse(bad).expect_err(&bad.join(" "));
    }
}

#[test]
fn global_options_stand_anywhere_before_the_modules_command() {
    let global = Global {
        socket: Some("/s".into()),
        config: Some("/c".into()),
        output: Output::Json,
    };
    for line in [
        "--socket /s --config=/c -o json list",
        "list -ojson --socket /s --config /c",
        "--socket /s apply f --output=json --config /c",
        "-o json --config /c run --socket /s image -o text",
        "logs --socket /s led -o json --config /c",
    ] {
        let words: Vec<&str> = line.split(' ').collect();
        assert_eq!(parse(&words).unwrap().global, global, "{line}");
    }
}

#[test]
fn wrong_usage_is_named() {
    for (line, message) in [
        (&[][..], "no command"),
        (&["lst"], "unknown command \"lst\""),
        (&["--frob", "list"], "unknown option \"--frob\""),
        (&["list", "a"], "unexpected argument \"a\""),
        (&["list", "-x"], "unknown option \"-x\""),
        (&["-o", "xml", "list"], "invalid output \"xml\""),
        (&["list", "-o"], "missing argument"),
        (&["restart"], "no module named"),
        (&["apply"], "no deployment file named"),
        (&["apply", "a", "b"], "unexpected argument \"b\""),
        (&["logs"], "no module named"),
        (&["logs", "a", "b"], "unexpected argument \"b\""),
        (&["logs", "a", "--tail", "-1"], "invalid tail \"-1\""),
        (&["logs", "a", "--since", "soon"], "invalid time \"soon\""),
    ] {
        let error = parse(line).unwrap_err();
        assert!(error.contains(message), "{line:?}: {error}");
    }
}

mod served;
