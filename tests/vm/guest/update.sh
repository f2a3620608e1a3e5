#!/bin/sh
# A box from its card, its backup, and its versions, on a real dpkg and systemd. Prints what Rust's test harness would.
set -u
PASSED=0 FAILED=0
STATE=/var/lib/crosspatch CONFIG=/etc/crosspatch/crosspatch.toml CARD=/boot/firmware

check() {
  name=$1
  shift
  if "$@"; then
    echo "test $name ... ok"
    PASSED=$((PASSED + 1))
  else
    echo "test $name ... FAILED ($*)"
    FAILED=$((FAILED + 1))
    tail -n 20 /tmp/said
  fi
}
version() { dpkg-query -W -f='${db:Status-Status} ${Version}' crosspatch; }
runs() { [ "$(version)" = "installed $1" ] && systemctl is-active --quiet crosspatch; }
event() { [ "$(cat $STATE/event.json)" = "{\"event\":\"$1\"}" ]; }
# Expects this exit code.
ends() {
  code=$1
  shift
  "$@" >/tmp/said 2>&1
  [ $? = "$code" ]
}
says() { grep -q "$1" /tmp/said; }
ready_says() { grep -q "$1" $STATE/ready.json; }
# As a boot does, but for the kernel.
boot() {
  systemctl stop crosspatch crosspatch-provision crosspatch-update
  systemctl reset-failed crosspatch crosspatch-provision crosspatch-update 2>/dev/null
  systemctl start crosspatch-update crosspatch-provision crosspatch >/tmp/said 2>&1
  systemctl is-active --quiet crosspatch
}

# This machine's image leaves documents out, and with them the first configuration.
echo 'path-include=/usr/share/doc/crosspatch/*' >/etc/dpkg/dpkg.cfg.d/zz-crosspatch
dpkg --install /host/1.deb >/tmp/said 2>&1
FIRST=$(dpkg-query -W -f='${Version}' crosspatch)
mkdir -p /etc/crosspatch/update-keys $CARD
check a_package_that_is_installed_runs runs "$FIRST"

crosspatch provision new --board sim $CARD/crosspatch.toml >/tmp/said 2>&1
sed -i 's/^id = "event"/id = "fair"/; s/"crosspatch"/"gate-1"/; s/join_links = false/join_links = true/' $CARD/crosspatch.toml
printf '[[person]]\r\nid = "anna"\r\nname = "Anna"\r\n' >>$CARD/crosspatch.toml
check a_box_starts_with_what_is_on_its_card boot
check its_event_is_that_of_the_card event fair
check its_name_is_that_of_the_card [ "$(hostname)" = gate-1 ]
check its_network_can_be_read_by_networkd su -s /bin/sh nobody -c 'grep -q DHCP=yes /run/systemd/network/05-crosspatch-2-wired.network'
check its_people_are_known sh -c "crosspatch person list --state-dir $STATE | grep -q Anna"
check a_link_for_them_is_on_the_card grep -q 'talk#token=' $CARD/crosspatch-links.txt
check what_it_took_is_on_the_card grep -q 'gate-1' $CARD/crosspatch-applied.txt
check no_file_of_the_state_belongs_to_root [ -z "$(find $STATE -user root)" ]
sed -i 's/"dhcp"/"10.0.0.0\/8"/' $CARD/crosspatch.toml
check a_box_starts_with_the_last_good_file boot
check the_error_is_on_the_card grep -q 'line .*10.0.0.0/8 is no address' $CARD/crosspatch-errors.txt
check the_gateway_says_that_it_was_refused ready_says 'configuration'
check it_is_still_the_box_of_the_last_good_file event fair

check a_backup_is_made_of_a_running_box ends 0 crosspatch backup /root/box.backup
check nothing_is_restored_into_a_running_box ends 65 crosspatch restore /root/box.backup
systemctl stop crosspatch
rm -rf "${STATE:?}"/token.secret $STATE/people.sqlite $STATE/provision
check a_backup_is_restored ends 0 crosspatch restore /root/box.backup
check a_restored_box_starts boot
check a_restored_box_has_its_people sh -c "crosspatch person list --state-dir $STATE | grep -q Anna"
check the_restored_file_is_on_the_card [ ! -e $CARD/crosspatch-errors.txt ]
check still_no_file_of_the_state_belongs_to_root [ -z "$(find $STATE -user root)" ]

check a_box_without_a_key_takes_nothing ends 65 crosspatch update /host/good.deb
cp /host/test.pub /etc/crosspatch/update-keys/
check an_unsigned_package_is_refused ends 65 crosspatch update /host/unsigned.deb
check nothing_has_changed runs "$FIRST"
check a_version_that_does_not_run_is_refused_by_the_gateways_silence ends 69 crosspatch update /host/bad.deb
check the_way_back_is_told says "did not become ready"
check the_version_before_runs_again runs "$FIRST"
check a_version_that_cannot_be_installed_is_given_up ends 69 crosspatch update /host/broken.deb
check the_version_before_runs_once_more runs "$FIRST"
check a_good_version_is_kept ends 0 crosspatch update /host/good.deb
check the_good_version_runs runs "$FIRST+good"
check the_way_back_is_open ends 0 crosspatch update --back
check the_version_before_the_good_one_runs runs "$FIRST"

crosspatch update /host/hangs.deb >/tmp/said 2>&1 &
update=$!
until [ "$(version)" = "installed $FIRST+hangs" ]; do sleep 1; done
kill -9 $update
systemctl kill --signal=KILL crosspatch-update-try
while systemctl is-active --quiet crosspatch-update-try; do sleep 1; done
check a_boot_after_an_interrupted_update_starts_the_gateway boot
check it_is_the_version_before runs "$FIRST"
check what_came_of_it_is_told sh -c "crosspatch update --status | grep -q 'the power went before version $FIRST+hangs was ready'"

echo "test result: $([ $FAILED = 0 ] && echo ok || echo FAILED). $PASSED passed; $FAILED failed; 0 ignored; 0 measured; 0 filtered out"
[ $FAILED = 0 ]
