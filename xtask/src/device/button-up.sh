#!/bin/sh
# Puts the Qwiic Button on the device's I2C bus.
modprobe i2c-dev
modprobe i2c-tiny-usb
modprobe vhci-hcd
qwiic-device /run/button /run/led > /run/qwiic-device.log 2>&1 &
until [ -e /dev/i2c-1 ]; do
    kill -0 $! || { cat /run/qwiic-device.log; break; }
    sleep 0.05
done
