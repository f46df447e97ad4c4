//! Fields of `NetworkingConfig`.

use super::{Row, honoured, no_effect};

/// Docker's `NetworkingConfig`.
pub(super) const ROWS: &[Row] = &[
    honoured(
        "NetworkingConfig.EndpointsConfig",
        "`host`, `none`, or the modules' bridge under any name",
    ),
    no_effect("NetworkingConfig.EndpointsConfig.*.IPAMConfig", ADDRESS),
    no_effect(
        "NetworkingConfig.EndpointsConfig.*.IPAMConfig.IPv4Address",
        ADDRESS,
    ),
    no_effect(
        "NetworkingConfig.EndpointsConfig.*.IPAMConfig.IPv6Address",
        ADDRESS,
    ),
    no_effect(
        "NetworkingConfig.EndpointsConfig.*.IPAMConfig.LinkLocalIPs",
        ADDRESS,
    ),
    no_effect(
        "NetworkingConfig.EndpointsConfig.*.Links",
        "modules find each other by name",
    ),
    no_effect(
        "NetworkingConfig.EndpointsConfig.*.MacAddress",
        "the address is made from the module's IP address",
    ),
    honoured(
        "NetworkingConfig.EndpointsConfig.*.Aliases",
        "more names by which other modules find this one",
    ),
    no_effect(
        "NetworkingConfig.EndpointsConfig.*.DriverOpts",
        "there is one network, with one driver",
    ),
    no_effect(
        "NetworkingConfig.EndpointsConfig.*.GwPriority",
        "there is one network",
    ),
    no_effect("NetworkingConfig.EndpointsConfig.*.NetworkID", TOLD),
    no_effect("NetworkingConfig.EndpointsConfig.*.EndpointID", TOLD),
    no_effect("NetworkingConfig.EndpointsConfig.*.Gateway", TOLD),
    no_effect("NetworkingConfig.EndpointsConfig.*.IPAddress", TOLD),
    no_effect("NetworkingConfig.EndpointsConfig.*.IPPrefixLen", TOLD),
    no_effect("NetworkingConfig.EndpointsConfig.*.IPv6Gateway", TOLD),
    no_effect("NetworkingConfig.EndpointsConfig.*.GlobalIPv6Address", TOLD),
    no_effect(
        "NetworkingConfig.EndpointsConfig.*.GlobalIPv6PrefixLen",
        TOLD,
    ),
    no_effect("NetworkingConfig.EndpointsConfig.*.DNSNames", TOLD),
];

const ADDRESS: &str = "addresses are chosen here; use the module's name";
const TOLD: &str = "Docker tells it and does not read it";
