#!/bin/sh
# A shell for tests on a virtio port: reads commands, one per line, and answers each with its
# output and "@@EXIT code". The device ends with it.
modprobe virtio_console
# Its node is there before the kernel knows the port.
until (: <> /dev/vport0p1) 2>/dev/null; do sleep 0.05; done
exec 3<> /dev/vport0p1
read -r uptime _ < /proc/uptime
echo "@@READY $uptime" >&3
while read -r line <&3; do
    sh -c "$line" > /tmp/output 2>&1 < /dev/null 3>&-
    code=$?
    { cat /tmp/output; printf '\n@@EXIT %s\n' "$code"; } >&3
done
poweroff -f
