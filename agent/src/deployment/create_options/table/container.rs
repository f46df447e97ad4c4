//! Fields of the body itself.

use super::{Row, honoured, no_effect};

/// Docker's `ContainerConfig`.
pub(super) const ROWS: &[Row] = &[
    honoured(
        "Hostname",
        "the module's name where absent; the host's own on its network",
    ),
    honoured("Domainname", "NIS domain name"),
    honoured(
        "User",
        "`user[:group]` by name or number, from the image's files",
    ),
    no_effect("AttachStdin", "`kobune attach` attaches; see `OpenStdin`"),
    no_effect("AttachStdout", "the output always goes to the log"),
    no_effect("AttachStderr", "the output always goes to the log"),
    honoured(
        "ExposedPorts",
        "for `PublishAllPorts`; publishing alone is `PortBindings`'",
    ),
    honoured("Tty", "a terminal for its streams; see `kobune attach`"),
    honoured(
        "OpenStdin",
        "its standard input is for those who attach; empty where absent",
    ),
    honoured(
        "StdinOnce",
        "the input ends with the first who wrote to it; not of a terminal",
    ),
    honoured(
        "Env",
        "added to the image's; wins over the manifest's `env`",
    ),
    honoured("Cmd", "a list, or one word"),
    honoured("Healthcheck", "each of its parts wins over the image's"),
    honoured("Healthcheck.Test", "`NONE`, `CMD`, `CMD-SHELL`"),
    honoured("Healthcheck.Interval", "nanoseconds; 30 s where 0"),
    honoured("Healthcheck.Timeout", "nanoseconds; 30 s where 0"),
    honoured("Healthcheck.StartPeriod", "nanoseconds"),
    honoured("Healthcheck.StartInterval", "nanoseconds; 5 s where 0"),
    honoured("Healthcheck.Retries", "3 where 0"),
    no_effect("ArgsEscaped", "it is for Windows"),
    no_effect("Image", "is overruled by the module's settings.image"),
    honoured(
        "Volumes",
        "anonymous volumes; filled from the image while they are new",
    ),
    honoured("WorkingDir", "created where the image lacks it"),
    honoured(
        "Entrypoint",
        "a list, or one word; one of its own drops the image's command",
    ),
    honoured("NetworkDisabled", "as `NetworkMode` none"),
    no_effect(
        "MacAddress",
        "the address is made from the module's IP address",
    ),
    no_effect("OnBuild", "it is for building images"),
    honoured("Labels", "kept with the container, and its annotations"),
    honoured("StopSignal", "by name or number"),
    honoured("StopTimeout", "seconds; 10 where absent"),
    no_effect("Shell", "it is for building images"),
];
