#!/bin/sh
# Starts the agent, with the data partition's configuration if it has one: /etc is read-only.
config=/var/lib/kobune/config.toml
[ -e "$config" ] || config=/etc/kobune/config.toml
kobune --config "$config" daemon > /run/kobune.log 2>&1 &
until [ -S /run/kobune/kobune.sock ]; do
    kill -0 $! || { cat /run/kobune.log; break; }
    sleep 0.05
done
