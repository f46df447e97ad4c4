#!/bin/sh
# The virtual device's init: a read-only root, one data partition, a Qwiic Button, the agent,
# and a shell for tests to drive it by. Kernel parameters:
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

for module in virtio-rng crc32c_generic; do
    modprobe "$module"
done
data=$(grep -lx data /sys/block/vd*/serial)
data=${data#/sys/block/}
mount -t ext4 "/dev/${data%/serial}" /var/lib/kobune || echo "no data partition"

ip link set lo up
told network || network-up

button-up

if told modprobe; then
    for module in veth bridge; do modprobe "$module"; done
    told overlay || modprobe overlay
    echo /bin/false > /proc/sys/kernel/modprobe
fi
told agent || agent-up

exec control
