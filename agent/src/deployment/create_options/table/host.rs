//! Fields of `HostConfig`.

use super::{Row, honoured, no_effect, refused};

/// Docker's `HostConfig` with its `Resources`.
pub(super) const ROWS: &[Row] = &[
    // Resources.
    honoured(
        "HostConfig.CpuShares",
        "weight among the others; 1024 is the default",
    ),
    honoured("HostConfig.Memory", "bytes, 6 MiB or more; 0 is no limit"),
    no_effect(
        "HostConfig.CgroupParent",
        "modules' cgroups are below the agent's",
    ),
    honoured(
        "HostConfig.BlkioWeight",
        "10 to 1000; a warning where the kernel has no weights",
    ),
    no_effect("HostConfig.BlkioWeightDevice", WEIGHT),
    no_effect("HostConfig.BlkioWeightDevice[].Path", WEIGHT),
    no_effect("HostConfig.BlkioWeightDevice[].Weight", WEIGHT),
    honoured(
        "HostConfig.BlkioDeviceReadBps",
        "bytes a second of a block device",
    ),
    honoured(
        "HostConfig.BlkioDeviceReadBps[].Path",
        "the device on the host",
    ),
    honoured("HostConfig.BlkioDeviceReadBps[].Rate", "0 is no limit"),
    honoured(
        "HostConfig.BlkioDeviceWriteBps",
        "bytes a second of a block device",
    ),
    honoured(
        "HostConfig.BlkioDeviceWriteBps[].Path",
        "the device on the host",
    ),
    honoured("HostConfig.BlkioDeviceWriteBps[].Rate", "0 is no limit"),
    honoured(
        "HostConfig.BlkioDeviceReadIOps",
        "reads a second of a block device",
    ),
    honoured(
        "HostConfig.BlkioDeviceReadIOps[].Path",
        "the device on the host",
    ),
    honoured("HostConfig.BlkioDeviceReadIOps[].Rate", "0 is no limit"),
    honoured(
        "HostConfig.BlkioDeviceWriteIOps",
        "writes a second of a block device",
    ),
    honoured(
        "HostConfig.BlkioDeviceWriteIOps[].Path",
        "the device on the host",
    ),
    honoured("HostConfig.BlkioDeviceWriteIOps[].Rate", "0 is no limit"),
    honoured("HostConfig.CpuPeriod", "microseconds"),
    honoured("HostConfig.CpuQuota", "microseconds of each period"),
    no_effect("HostConfig.CpuRealtimePeriod", REALTIME),
    no_effect("HostConfig.CpuRealtimeRuntime", REALTIME),
    honoured("HostConfig.CpusetCpus", "such as `0-2,4`"),
    honoured("HostConfig.CpusetMems", "such as `0`"),
    honoured(
        "HostConfig.Devices",
        "nodes, links to them and directories of them",
    ),
    honoured(
        "HostConfig.Devices[].PathOnHost",
        "a node, a link or a directory",
    ),
    honoured(
        "HostConfig.Devices[].PathInContainer",
        "below /dev; as on the host where absent",
    ),
    honoured(
        "HostConfig.Devices[].CgroupPermissions",
        "of `r`, `w`, `m`; all where absent",
    ),
    honoured("HostConfig.DeviceCgroupRules", "such as `c 189:* rmw`"),
    honoured(
        "HostConfig.DeviceRequests",
        "devices that CDI files on this device describe; see below",
    ),
    honoured(
        "HostConfig.DeviceRequests[].Driver",
        "`cdi`, `nvidia`; NVIDIA's where empty",
    ),
    honoured(
        "HostConfig.DeviceRequests[].Count",
        "of NVIDIA's GPUs; all where absent or -1",
    ),
    honoured(
        "HostConfig.DeviceRequests[].DeviceIDs",
        "`vendor.com/class=name` of `cdi`; numbers or names of `nvidia`",
    ),
    honoured(
        "HostConfig.DeviceRequests[].Capabilities",
        "`[[\"gpu\"]]` where no driver is named",
    ),
    no_effect(
        "HostConfig.DeviceRequests[].Options",
        "the description of the device says everything",
    ),
    no_effect("HostConfig.KernelMemory", "Linux no longer limits it apart"),
    no_effect(
        "HostConfig.KernelMemoryTCP",
        "Linux no longer limits it apart",
    ),
    honoured("HostConfig.MemoryReservation", "bytes; 0 is none"),
    honoured(
        "HostConfig.MemorySwap",
        "memory and swap together; -1 is no limit, twice the memory where absent",
    ),
    honoured(
        "HostConfig.MemorySwappiness",
        "0 to 100; cgroup version 1 only, else a warning",
    ),
    honoured(
        "HostConfig.NanoCpus",
        "billionths of a processor; 0 is no limit",
    ),
    honoured(
        "HostConfig.OomKillDisable",
        "with `Memory`; cgroup version 1 only, else a warning",
    ),
    honoured(
        "HostConfig.Init",
        "a first process that passes signals on and reaps",
    ),
    honoured("HostConfig.PidsLimit", "0 and -1 are no limit"),
    honoured(
        "HostConfig.Ulimits",
        "limits of the processes; the agent's where absent",
    ),
    honoured("HostConfig.Ulimits[].Name", "such as `nofile`"),
    honoured("HostConfig.Ulimits[].Soft", "-1 is no limit"),
    honoured("HostConfig.Ulimits[].Hard", "-1 is no limit"),
    no_effect("HostConfig.CpuCount", WINDOWS),
    no_effect("HostConfig.CpuPercent", WINDOWS),
    no_effect("HostConfig.IOMaximumIOps", WINDOWS),
    no_effect("HostConfig.IOMaximumBandwidth", WINDOWS),
    // The rest.
    honoured(
        "HostConfig.Binds",
        "`source:target[:ro,rw,z,Z,nocopy,propagation]`; a missing source is created, a name is a volume",
    ),
    no_effect("HostConfig.ContainerIDFile", "modules have names"),
    honoured("HostConfig.LogConfig", "10 MiB in three files where absent"),
    honoured(
        "HostConfig.LogConfig.Type",
        "`json-file`, `local` (both files of our own), `none`, `journald`, `syslog`, `ring` (our own: memory, saved when the module fails); others are kept in files, with a warning",
    ),
    honoured(
        "HostConfig.LogConfig.Config",
        "see docs/operations.md; others have no effect, with a warning",
    ),
    honoured(
        "HostConfig.NetworkMode",
        "`bridge`, `host`, `none`, `container:module`",
    ),
    honoured(
        "HostConfig.PortBindings",
        "`80/tcp`, `53/udp`, `8000-8010/tcp`",
    ),
    honoured(
        "HostConfig.PortBindings.*[].HostIp",
        "all addresses where empty",
    ),
    honoured(
        "HostConfig.PortBindings.*[].HostPort",
        "a free one where empty or 0; a range for a range",
    ),
    no_effect(
        "HostConfig.RestartPolicy",
        "is overruled by the module's restartPolicy",
    ),
    no_effect(
        "HostConfig.RestartPolicy.Name",
        "is overruled by the module's restartPolicy",
    ),
    no_effect(
        "HostConfig.RestartPolicy.MaximumRetryCount",
        "is overruled by the module's restartPolicy",
    ),
    no_effect(
        "HostConfig.AutoRemove",
        "the deployment says how long a module is there",
    ),
    no_effect(
        "HostConfig.VolumeDriver",
        "volumes are directories of the device",
    ),
    honoured(
        "HostConfig.VolumesFrom",
        "`module[:ro|rw]`: its bind mounts and volumes",
    ),
    honoured("HostConfig.Mounts", "of type `bind`, `volume` or `tmpfs`"),
    honoured("HostConfig.Mounts[].Type", "`bind`, `volume` or `tmpfs`"),
    honoured("HostConfig.Mounts[].Target", "absolute path inside"),
    honoured(
        "HostConfig.Mounts[].Source",
        "path of the host, which must be there, or volume",
    ),
    honoured("HostConfig.Mounts[].ReadOnly", ""),
    no_effect(
        "HostConfig.Mounts[].Consistency",
        "it is for Docker Desktop",
    ),
    honoured("HostConfig.Mounts[].BindOptions", ""),
    honoured(
        "HostConfig.Mounts[].BindOptions.Propagation",
        "`private` where absent",
    ),
    honoured(
        "HostConfig.Mounts[].BindOptions.NonRecursive",
        "without what is mounted below",
    ),
    honoured(
        "HostConfig.Mounts[].BindOptions.CreateMountpoint",
        "creates a missing source",
    ),
    honoured(
        "HostConfig.Mounts[].BindOptions.ReadOnlyNonRecursive",
        "as every read-only mount here",
    ),
    honoured(
        "HostConfig.Mounts[].BindOptions.ReadOnlyForceRecursive",
        "Linux 5.12",
    ),
    honoured("HostConfig.Mounts[].VolumeOptions", ""),
    honoured(
        "HostConfig.Mounts[].VolumeOptions.NoCopy",
        "leaves a new volume empty",
    ),
    no_effect(
        "HostConfig.Mounts[].VolumeOptions.Labels",
        "volumes carry no labels",
    ),
    honoured(
        "HostConfig.Mounts[].VolumeOptions.DriverConfig",
        "`local`; others are refused",
    ),
    honoured(
        "HostConfig.Mounts[].VolumeOptions.DriverConfig.Name",
        "`local` or empty; others are refused",
    ),
    honoured(
        "HostConfig.Mounts[].VolumeOptions.DriverConfig.Options",
        "`type=none,o=bind,device=PATH` and `type=tmpfs`; others are refused",
    ),
    honoured(
        "HostConfig.Mounts[].VolumeOptions.Subpath",
        "a part of the volume, which must be there",
    ),
    no_effect(
        "HostConfig.Mounts[].ImageOptions",
        "there are no mounts of images",
    ),
    no_effect(
        "HostConfig.Mounts[].ImageOptions.Subpath",
        "there are no mounts of images",
    ),
    honoured("HostConfig.Mounts[].TmpfsOptions", ""),
    honoured(
        "HostConfig.Mounts[].TmpfsOptions.SizeBytes",
        "half of the memory where absent",
    ),
    honoured(
        "HostConfig.Mounts[].TmpfsOptions.Mode",
        "as a decimal number; 1777 octal where absent",
    ),
    honoured(
        "HostConfig.Mounts[].TmpfsOptions.Options",
        "such as `[[\"exec\"], [\"uid\", \"7\"]]`",
    ),
    honoured(
        "HostConfig.ConsoleSize",
        "rows and columns at first; with `Tty`",
    ),
    honoured(
        "HostConfig.Annotations",
        "of the OCI specification; `io.containers.sdnotify`: see docs/operations.md",
    ),
    honoured("HostConfig.CapAdd", "with or without `CAP_`; `ALL`"),
    honoured("HostConfig.CapDrop", "with or without `CAP_`; `ALL`"),
    honoured(
        "HostConfig.CgroupnsMode",
        "`private`, `host`; `private` on cgroup version 2 alone where absent",
    ),
    honoured("HostConfig.Dns", "resolvers instead of the host's"),
    honoured("HostConfig.DnsOptions", "such as `ndots:2`"),
    honoured("HostConfig.DnsSearch", "`.` for none"),
    honoured(
        "HostConfig.ExtraHosts",
        "`name:address`, `name:host-gateway`",
    ),
    honoured(
        "HostConfig.GroupAdd",
        "by number, or by name from the image's /etc/group",
    ),
    honoured(
        "HostConfig.IpcMode",
        "`private`, `shareable`, `host`, `none`, `container:module`",
    ),
    no_effect("HostConfig.Cgroup", "it never had one in Docker"),
    no_effect("HostConfig.Links", "modules find each other by name"),
    honoured("HostConfig.OomScoreAdj", "-1000 to 1000"),
    honoured("HostConfig.PidMode", "`host`, `container:module`"),
    honoured(
        "HostConfig.Privileged",
        "every device and capability, nothing masked, no seccomp",
    ),
    honoured(
        "HostConfig.PublishAllPorts",
        "those that image and `ExposedPorts` name, on free ports",
    ),
    honoured("HostConfig.ReadonlyRootfs", ""),
    honoured(
        "HostConfig.SecurityOpt",
        "`no-new-privileges`, `seccomp=` JSON or `unconfined`, `apparmor=`, `systempaths=unconfined`; `label=` has no effect",
    ),
    honoured(
        "HostConfig.StorageOpt",
        "`size` of the writable layer, such as `512m`; where the file system has project quotas, see below",
    ),
    honoured(
        "HostConfig.Tmpfs",
        "options `size=`, `mode=` and the usual flags",
    ),
    honoured(
        "HostConfig.UTSMode",
        "`host`: the host's name is the module's",
    ),
    honoured(
        "HostConfig.UsernsMode",
        "`host`, or `private` (`auto`): ids of the module's own, see below",
    ),
    honoured(
        "HostConfig.ShmSize",
        "bytes of /dev/shm; 64 MiB where absent",
    ),
    honoured(
        "HostConfig.Sysctls",
        "those of the module's own network and IPC namespaces",
    ),
    honoured(
        "HostConfig.Runtime",
        "`runc` and the like; `nvidia` requests GPUs, see below; others are refused",
    ),
    no_effect("HostConfig.Isolation", WINDOWS),
    honoured(
        "HostConfig.MaskedPaths",
        "instead of Docker's; an empty list masks nothing",
    ),
    honoured(
        "HostConfig.ReadonlyPaths",
        "instead of Docker's; an empty list protects nothing",
    ),
    refused(
        "HostConfig.Capabilities",
        "it was withdrawn from Docker's API: use CapDrop ALL and CapAdd",
    ),
    honoured(
        "HostConfig.DiskQuota",
        "bytes, as `StorageOpt` `size`; Docker itself no longer has it",
    ),
];

const WEIGHT: &str = "weights of single devices are not set";
const REALTIME: &str = "modules' cgroups get no share of real-time processor time";
const WINDOWS: &str = "it is for Windows";
