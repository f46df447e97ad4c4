#!/bin/sh
# First program of a guest that has the files of the machine it runs on, under another kernel and
# with cgroups of version 2 alone. What it writes is on a disk of its own and gone with it; the
# program that it runs, and what that leaves, are in /mnt.
/bin/busybox --install -s /bin
mount -t devtmpfs devtmpfs /dev
mount -t proc proc /proc
mount -t sysfs sysfs /sys
for module in $(cat /modules); do
    insmod "/$module"
done
share() { mount -t 9p -o "trans=virtio,version=9p2000.L,msize=512000,$3" "$1" "$2"; }
mkdir /host /scratch
share host /host ro,cache=loose
mount -t ext4 /dev/vda /scratch
mkdir /scratch/upper /scratch/work /scratch/tmp
chmod 1777 /scratch/tmp
mount -t overlay -o lowerdir=/host,upperdir=/scratch/upper,workdir=/scratch/work overlay /root
mkdir -p /root/lib/modules
share kernel /root/lib/modules ro,cache=loose
share exchange /root/mnt rw
# Overlays and loop devices take a disk below them.
mount --bind /scratch/tmp /root/tmp
mount -t tmpfs -o mode=755 run /root/run
for dir in dev proc sys; do
    mount --move "/$dir" "/root/$dir"
done
mkdir -p /root/dev/pts /root/dev/shm
mount -t devpts -o newinstance,ptmxmode=0666 devpts /root/dev/pts
mount -t tmpfs shm /root/dev/shm
mount -t cgroup2 cgroup2 /root/sys/fs/cgroup
ip link set lo up
exec switch_root /root /bin/sh /mnt/init
