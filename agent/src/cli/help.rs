//! Help texts.

/// Which text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Topic {
    Overview,
    Apply,
    Run,
    Logs,
    Check,
    Exec,
    Attach,
    Copy,
    Watch,
    Config,
    Manifest,
    Images,
    Bundle,
}

/// The text for a command; the overview for any other word.
pub(super) fn topic(word: Option<&str>) -> Topic {
    match word {
        Some("apply") => Topic::Apply,
        Some("run") => Topic::Run,
        Some("logs") => Topic::Logs,
        Some("check") => Topic::Check,
        Some("exec") => Topic::Exec,
        Some("cp") => Topic::Copy,
        Some("attach") => Topic::Attach,
        Some("stats" | "top" | "events" | "history") => Topic::Watch,
        Some("config") => Topic::Config,
        Some("manifest") => Topic::Manifest,
        Some("bundle") => Topic::Bundle,
        Some("image" | "images" | "rmi" | "prune") => Topic::Images,
        _ => Topic::Overview,
    }
}

impl Topic {
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Overview => OVERVIEW,
            Self::Apply => APPLY,
            Self::Run => RUN,
            Self::Logs => LOGS,
            Self::Check => CHECK,
            Self::Exec => EXEC,
            Self::Attach => ATTACH,
            Self::Copy => COPY,
            Self::Watch => WATCH,
            Self::Config => CONFIG,
            Self::Manifest => MANIFEST,
            Self::Images => IMAGES,
            Self::Bundle => BUNDLE,
        }
    }
}

const OVERVIEW: &str = "\
Kobune runs the modules that a deployment asks for.

Usage: kobune [OPTIONS] COMMAND

Commands:
  daemon                 run the agent
  halt                   stop all modules when the daemon has ended; the next one starts
                         them again
  apply FILE|-           replace the deployment and wait until it is carried out
  run IMAGE [COMMAND]    run one module from an image, with docker's options
  rm NAME...             stop and remove modules that 'run' started
  list                   show the modules
  logs NAME              show what a module wrote
  exec NAME COMMAND      run a process in a module
  cp SOURCE TARGET       copy files into a module or out of it
  attach NAME            see and type what a module's main process writes and reads
  restart NAME...        restart modules
  stop NAME...           stop modules until they are restarted
  kill [-s SIGNAL] NAME...  send modules' first process a signal [KILL]
  pause NAME...          let modules' processes stand still
  unpause NAME...        let them go on
  stats [NAME...]        show what running modules use
  top NAME               show a module's processes
  events                 show what happens
  history NAME           show how a module's last runs failed, also before its update
  inspect NAME...        show all about modules, as JSON
  images [verify|repair] show the images on disk, check them, mend them
  image load|save        take images from a file, write them to one
  bundle create|apply    carry a deployment with its images in one file
  rmi IMAGE...           remove images
  prune                  remove the images that nothing needs
  check                  find out what this device lacks
  config mp|apply        connect the device to a hub, check the configuration
  manifest build FILE    turn a deployment template into a manifest, without the daemon
  version                show the versions of this program and of the daemon
  help [COMMAND]         show this text, or that of apply, run, exec, attach, cp,
                         logs, stats, images, bundle, check, config or manifest

Options of every command:
  -o, --output text|json  form of the output
      --socket PATH       the daemon's socket [$KOBUNE_SOCKET, or as configured]
      --config PATH       configuration file [$KOBUNE_CONFIG, /etc/kobune/config.toml]

Exit status: 0 done, 1 failed, 2 wrong usage, 3 daemon not reachable.
";

const APPLY: &str = "\
Replaces the deployment by FILE ('-': standard input) and waits until it is carried out.

Usage: kobune apply [OPTIONS] FILE|-

      --env-file FILE   variables for the credentials that FILE names as $NAME; a later
                        file wins, the environment over all
  -d, --detach          return when the deployment is accepted
";

const BUNDLE: &str = "\
Carries a deployment with all its images in one file, to devices without a network.

Usage: kobune bundle create -o FILE [OPTIONS] DEPLOYMENT
       kobune bundle apply [-d] FILE

  create  fetch the images, needs no daemon; prints the file's digest, length and parts
  apply   load the images and apply the deployment

      --have LIST      leave out layers named here, such as 'ls /var/lib/kobune/layers' shows
      --platform NAME  of the device, such as linux/arm/v7 [this machine's]
      --env-file FILE  variables for the credentials that DEPLOYMENT names as $NAME
  -d, --detach         return when the deployment is accepted

The same images, deployment and list give the same file. It is an OCI archive, which skopeo reads.
";

const IMAGES: &str = "\
Looks after the images on disk.

Usage: kobune images
       kobune images verify [--repair]
       kobune images repair
       kobune image load [--root DIRECTORY [--platform PLATFORM]] -i FILE
       kobune image save -o FILE [--format FORMAT] IMAGE...
       kobune rmi [-f] IMAGE...
       kobune prune [-a]

  images          show them, and which modules use them
  images verify   read every file from the disk and find out what has changed
  images repair   the same, fetch what is damaged anew, and restart the modules that use it
  image load      take the images of an OCI layout (directory or tar) or of 'docker save'
  image save      write images to a file that docker, podman, skopeo and 'image load' read
  rmi             forget images, and remove what only they had
  prune           remove images that no module runs, shall run, or ran before

      --repair    as images repair
      --root      load into a store that no daemon has, to be images.preloaded of a device
      --platform  of that device, such as linux/arm/v7; this machine's where absent
      --format    oci-archive (the default; docker-archive is the same file) or oci-dir
  -f, --force     also an image that a module uses: its files go when it no longer does
  -a, --all       also images that modules ran before the ones they have now

The agent removes images by itself that nothing needed for images.keep_days, and when a pull
finds no room. Exit status of verify and repair: 1 where something is still damaged.
";

const CHECK: &str = "\
Finds out what this device lacks to run modules, what comes of it, and what to do about it.
Needs no daemon, and changes nothing. Run it as root: mounts and the network are tried out,
in namespaces of their own.

Usage: kobune check [OPTIONS]

      --skip ID[,ID...]     do not ask these; their ids are in brackets
      --list                show all checks with their ids
      --warnings-as-errors  fail where there are warnings

Exit status: 0 no errors, 1 errors, 2 wrong usage.
";

const CONFIG: &str = "\
Connects the device to an Azure IoT Hub, and checks the configuration.

Usage: kobune config mp -c CONNECTION_STRING [-f]
       kobune config apply

  mp      write the device's connection string into the configuration file
  apply   check the configuration file

  -c, --connection-string TEXT  HostName=...;DeviceId=...;SharedAccessKey=...
  -f, --force                   replace another hub

The daemon reads its configuration when it starts.
";

const MANIFEST: &str = "\
Turns a deployment template of IoT Edge's tools into a deployment manifest. Needs no daemon.

Usage: kobune manifest build [OPTIONS] TEMPLATE

      --platform NAME   platform of images that name none, such as arm32v7
                        [$DEFAULT_PLATFORM]
      --env-file FILE   further variables; a later file wins, the environment over all
                        [.env beside the template]
      --modules DIR     where modules' directories with module.json are
                        [modules beside the template]
      --out FILE        where to write the manifest [standard output]

${MODULES.led}, ${MODULES.led.debug}, ${MODULES.led.arm32v7} and ${MODULEDIR<../led>} become
images, $NAME and ${NAME} variables' values. User names and passwords in registryCredentials
stay variables: 'kobune-hub deploy' and 'kobune apply' fill them in.
";

const WATCH: &str = "\
Shows what goes on in the modules.

Usage: kobune stats [--no-stream] [NAME...]
       kobune top NAME
       kobune events
       kobune history NAME

  stats    processor, memory, processes, network and block devices of running modules,
           once a second; --no-stream: once
  top      a module's processes
  history  the last 5 runs that failed, with exit code and last 4 KiB of log; in a loop of
           failures the restarts numbered 0, 1, 2, 4, 8, 16
  events   each change of a module, each pull, each deployment, as it happens

With -o json stats and events are one object a line, stats --no-stream and top an array.
";

const EXEC: &str = "\
Runs a process in a running module, with the module's user, environment, limits and
confinement, and ends with its exit code: 126 where it cannot be run, 127 where it is not
there. The process ends with the module, with this command, and with the daemon.

Usage: kobune exec [OPTIONS] NAME COMMAND [ARGUMENT...]

  -i, --interactive          pass standard input on
  -t, --tty                  give it a terminal
  -u, --user USER[:GROUP]    another user, by name or number
  -e, --env KEY[=VALUE]      environment variable; its value here where absent
  -w, --workdir DIR          another working directory

Without a terminal SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1 and SIGUSR2 are passed on.
";

const COPY: &str = "\
Copies files and directories out of a module or into one, running or not.

Usage: kobune cp [OPTIONS] NAME:PATH TARGET|-
       kobune cp [OPTIONS] SOURCE|- NAME:PATH

  -a, --archive      keep owners by number; else files belong to who runs this command, in
                     the module to root, and have no set-user-id and no capabilities
  -L, --follow-link  copy what SOURCE leads to, where it is a link

'-' is a tar archive on standard output or input. Where TARGET is a directory, SOURCE is
copied into it; where it is not there, under its name; SOURCE/. is what is in SOURCE.
Modes, times and attributes are kept; directories that are there keep theirs. Sockets
are left out, and named. A local file with ':' in its name begins with / or ./ .
";

const ATTACH: &str = "\
Shows what a module's main process writes from now on, passes input and signals to it, and
ends with its exit code. Input reaches it where the module has OpenStdin, a terminal is its
own where it has Tty. The daemon may restart meanwhile.

Usage: kobune attach [OPTIONS] NAME

      --no-stdin          pass no input on
      --sig-proxy=false   pass no signals on, where it has no terminal
      --detach-keys KEYS  leave it running when these are typed [ctrl-p,ctrl-q]; with a
                          terminal; '' for none

Output is kept in the log as well: 'kobune logs'. A command that does not take the output
in time is cut off.
";

const LOGS: &str = "\
Shows what a module wrote: its standard output on standard output, its standard error
on standard error.

Usage: kobune logs [OPTIONS] NAME

  -f, --follow       go on with what it writes
  -n, --tail N|all   only the last N messages
      --since TIME   only from TIME on
      --until TIME   only up to TIME
  -t, --timestamps   begin each line with its time

TIME is 2026-01-02T03:04:05Z, seconds since 1970, or a time ago: 10m, \"1 day\".
";

const RUN: &str = "\
Runs one module from an image, beside the deployment, and waits until it is started.

Usage: kobune run [OPTIONS] IMAGE [COMMAND [ARGUMENT...]]

      --name NAME              name of the module [last part of the image's name]
      --restart POLICY         no, on-failure, always or unless-stopped [no]
      --pull POLICY            always, missing or never
  -e, --env KEY[=VALUE]        environment variable; its value here where absent
      --env-file FILE          file of KEY=VALUE lines
      --entrypoint PROGRAM     replaces the image's entry point
  -u, --user USER[:GROUP]      user inside
  -w, --workdir DIR            working directory inside
  -h, --hostname NAME          host name inside
  -l, --label KEY=VALUE        label
Devices and privileges:
      --device HOST[:INSIDE[:rwm]], or VENDOR/CLASS=NAME of a CDI file
      --device-cgroup-rule RULE
      --privileged             all devices and capabilities, no confinement
      --cap-add, --cap-drop CAPABILITY
      --group-add GROUP        further group of the user
      --security-opt OPTION
      --read-only              read-only root filesystem
  -i, --interactive            keep its standard input open for 'kobune attach'
  -t, --tty                    give it a terminal
      --sdnotify container     it says itself when it is ready
Files:
  -v, --volume SOURCE:INSIDE[:OPTIONS]
      --mount type=bind|volume|tmpfs,source=..,target=..[,readonly]
      --tmpfs DIR[:OPTIONS]
Network:
  -p, --publish [[IP:]HOST:]PORT[/udp]
      --network bridge|host|none
      --add-host NAME:IP
      --dns ADDRESS
Limits:
  -m, --memory SIZE            such as 64m
      --cpus NUMBER            such as 0.5
      --pids-limit NUMBER
      --shm-size SIZE
      --ulimit NAME=SOFT[:HARD]
      --storage-opt size=SIZE  of its writable layer, where the disk has quotas
      --stop-timeout SECONDS
      --stop-signal SIGNAL
      --log-driver json-file|ring|journald|syslog|none
      --log-opt max-size=10m, --log-opt max-file=3
Registry:
      --username NAME          with --password-stdin
      --password-stdin         read the password from standard input
  -d, --detach                 accepted; modules always run in the background
";
