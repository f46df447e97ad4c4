#!/bin/sh
# First program of the virtual device: finds the root file system and hands over to it.
/bin/busybox --install -s /bin
mount -t devtmpfs devtmpfs /dev
mount -t proc proc /proc
mount -t sysfs sysfs /sys
for module in $(cat /modules); do
    insmod "/$module"
done
until root=$(grep -lx root /sys/block/vd*/serial); do
    sleep 0.1
done
root=${root#/sys/block/}
mode=ro
grep -qw rw /proc/cmdline && mode=rw
mount -t ext4 -o "$mode" "/dev/${root%/serial}" /root
umount /sys /proc
mount --move /dev /root/dev
exec switch_root /root /sbin/init
