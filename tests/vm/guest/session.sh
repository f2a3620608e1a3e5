#!/bin/sh
# Runs suites in the guest: vm (this directory), cdev and rppal (the GPIO suite). What follows after -- are the arguments of each.
export CROSSPATCH_BIN=/host/crosspatch
suites=
while [ $# -gt 0 ] && [ "$1" != -- ]; do
  suites="$suites $1"
  shift
done
[ $# = 0 ] || shift

# A Raspberry Pi, as far as rppal looks. Its registers remember nothing: levels mean nothing there, edges come from the chip.
pretend_to_be_a_pi() {
  mount -t tmpfs tmpfs /sys/firmware
  mkdir -p /sys/firmware/devicetree/base
  printf 'raspberrypi,4-model-b\0brcm,bcm2711\0' >/sys/firmware/devicetree/base/compatible
  head -c 8192 /dev/zero >/dev/gpiomem
}

modprobe gpio-sim
status=0
for suite in $suites; do
  echo "suite $suite"
  case $suite in
    vm) /host/vm --test-threads=1 --color=never "$@" ;;
    cdev) CROSSPATCH_GPIO_RIG=cdev /host/gpio --test-threads=1 --color=never "$@" ;;
    rppal) pretend_to_be_a_pi && CROSSPATCH_GPIO_RIG=rppal /host/gpio --test-threads=1 --color=never "$@" ;;
    *) false ;;
  esac || status=1
done
exit $status
