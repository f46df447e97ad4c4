#!/bin/sh
# Brings the virtual device's network up.
modprobe virtio_net
until ip link set eth0 up 2>/dev/null; do sleep 0.05; done
ip address add 10.0.2.15/24 dev eth0
ip route add default via 10.0.2.2
