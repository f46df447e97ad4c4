# The device is this machine, too.
## kobune-hub device create pump-1 --edge
wait_for kobune-hub device list
## CONNECTION_STRING=$(kobune-hub device rotate pump-1 --key secondary)
sed -i '1i trust_bundle_cert = "file:///var/lib/kobune-hub/ca.pem"' /etc/kobune/config.toml
kobune config mp -c "$(kobune-hub device connection-string pump-1)"
## kobune-hub user add anna --role operator --state /var/lib/kobune-hub < password
agent
echo 'a password that is long enough' > password
## export KOBUNE_HUB_CONNECTION_STRING="$(cat service.connection-string)"    # as the hub wrote it
cp /var/lib/kobune-hub/service.connection-string /var/lib/kobune-hub/ca.pem .
