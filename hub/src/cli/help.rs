//! The help text.

pub(super) const TEXT: &str = "\
kobune-hub, a self-hosted hub for Azure IoT Hub's devices, and a command line for any hub

The hub:
  serve --state DIR [--listen ADDRESS] [--hostname NAME]...
        [--mqtt-port PORT] [--https-port PORT]
  user add NAME [--role reader|operator]   a user of the portal; the password is read
                                           from standard input
  user list
  user remove NAME
  backup FILE|-                            all that the hub keeps, keys too, also while it runs
  restore FILE|- [--force]                 put a backup into the state directory; with --force
                                           also where a hub was

Its devices, or those of an Azure IoT Hub:
  device create ID [--edge] [--tag TAG]... make a device, show its connection string
  device list
  device show ID
  device tag ID TAG...                     NAME=TEXT, NAME:=JSON, or NAME- to remove it
  device enable|disable ID
  device rotate ID --key primary|secondary [--module ID]
                                           give it another key, show the connection string
  device connection-string ID [--key primary|secondary] [--module ID]
  device delete ID
  deploy MANIFEST|- --device ID            set the modules of a device
  deploy MANIFEST|- --name NAME --target-condition CONDITION [--priority N]
                                           make an automatic deployment
                                           both with [--env-file FILE]... for the
                                           credentials that the manifest names as $NAME
  deployment list
  deployment show|delete NAME
  status [DEVICE [--wait SECONDS]]         response code and modules; with --wait until the
                                           newest deployment is carried out
  logs DEVICE MODULE [--tail N] [--since TIME] [--until TIME] [-f|--follow] [--timestamps]
  method DEVICE NAME [PAYLOAD] [--module ID|--of-the-device] [--timeout SECONDS]
                                           call a direct method, of the agent unless told
                                           otherwise

Options of these:
  -o, --output text|json
  --connection-string TEXT   a service's connection string [$KOBUNE_HUB_CONNECTION_STRING]
  --ca FILE                  certificates to trust instead of the system's [$KOBUNE_HUB_CA]
  --state DIR                a hub's state directory, which has both [/var/lib/kobune-hub]

serve listens on 127.0.0.1, ports 8883 and 443, unless told otherwise, and is called
localhost unless given names; devices have to use one of them. Users are those of the
portal, https://NAME/portal/, readers without --role.

Exit status: 0 done, 1 failed, 2 wrong usage, 3 hub not reachable.
";
