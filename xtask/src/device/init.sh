#!/bin/sh
# The virtual device's init: a read-only root, one data partition, a Qwiic Button, the agent,
# and a line-wise shell on a virtio port for tests to drive it by. Kernel parameters:
#   kobune.modprobe=off  no more kernel modules once it is up, so no netfilter
#   kobune.overlay=off   with that: no overlayfs either
#   kobune.network=off   no network until `network-up` is run
#   kobune.agent=off     no agent
export PATH=/run/bin:/usr/bin:/sbin:/bin
busybox mount -t proc proc /proc
busybox mount -t tmpfs -o mode=755 run /run
busybox mkdir /run/bin
busybox --install -s /run/bin
mount -t sysfs sysfs /sys
mount -t tmpfs tmp /tmp
mkdir /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t cgroup2 cgroup2 /sys/fs/cgroup
hostname kobune-device

told() { grep -qw "kobune.$1=off" /proc/cmdline; }

for module in virtio_console virtio-rng crc32c_generic; do
    modprobe "$module"
done
data=$(grep -lx data /sys/block/vd*/serial)
data=${data#/sys/block/}
mount -t ext4 "/dev/${data%/serial}" /var/lib/kobune || echo "no data partition"

ip link set lo up
told network || network-up

modprobe i2c-dev
modprobe i2c-tiny-usb
modprobe vhci-hcd
qwiic-device /run/button /run/led > /run/qwiic-device.log 2>&1 &
until [ -e /dev/i2c-1 ]; do
    kill -0 $! || { cat /run/qwiic-device.log; break; }
    sleep 0.05
done

if told modprobe; then
    for module in veth bridge; do modprobe "$module"; done
    told overlay || modprobe overlay
    echo /bin/false > /proc/sys/kernel/modprobe
fi
told agent || agent-up

# Reads commands, one per line; answers each with its output and "@@EXIT code".
until [ -e /dev/vport0p1 ]; do sleep 0.05; done
exec 3<> /dev/vport0p1
read -r uptime _ < /proc/uptime
echo "@@READY $uptime" >&3
while read -r line <&3; do
    sh -c "$line" > /tmp/output 2>&1 < /dev/null 3>&-
    code=$?
    { cat /tmp/output; printf '\n@@EXIT %s\n' "$code"; } >&3
done
poweroff -f
