#!/bin/bash
# What is proved in a box that started from the image. tests/vm/image boots it and says by /run/host/step which boot this is.
# What is said here is read there; the last line is a verdict.
set -u
STATE=/var/lib/crosspatch RO=/run/root/ro CARD=/boot/firmware
# The version that the root on the card has.
OWN=$(dpkg-query --admindir=$RO/var/lib/dpkg -W -f='${Version}' crosspatch)
FAULTS=0

say() { echo "$*" >>/run/out/said; }
passed() { say "ok: $*"; }
wrong() { say "WRONG: $*"; FAULTS=$((FAULTS + 1)); }
# Runs a command and says in the words before `--` that it holds.
holds() {
  local what=$1
  shift 2
  if "$@" >/run/holds 2>&1; then passed "$what"; else wrong "$what: $* says: $(tail -n 5 /run/holds)"; fi
}
# The same, within five minutes; the emulator is slow, most of all while a package is installed.
comes() {
  local what=$1 deadline=$((SECONDS + 300))
  shift 2
  until "$@" >/run/comes 2>&1; do
    [ "$SECONDS" -lt "$deadline" ] || { wrong "$what never happened: $* says: $(tail -n 5 /run/comes)"; return; }
    sleep 0.3
  done
  passed "$what"
}
is() { [ "$1" = "$2" ] || { echo "it is '$1', not '$2'"; return 1; }; }
fails() { ! "$@"; }
# A command ends with this exit code and says this.
ends() {
  local code=$1 words=$2 said
  shift 2
  said=$("$@" 2>&1)
  [ $? = "$code" ] && grep -q -- "$words" <<<"$said" || { echo "$said"; return 1; }
}
mounted_read_only() { findmnt -no OPTIONS "$1" | grep -q '^ro,'; }

# The gateway's API, as the front panel uses it.
http() {
  local method=$1 path=$2 body=${3:-}
  exec 5<>/dev/tcp/127.0.0.1/8080 || return
  printf '%s %s HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s' \
    "$method" "$path" "${#body}" "$body" >&5
  timeout 20 cat <&5
  exec 5>&-
}
answers() { http GET /api/panel | head -n 1 | grep -q ' 200 '; }
degraded() { http GET /api/panel | grep -qF "\"part\":\"$1\""; }
part_says() { http GET /api/panel | grep -o "\"part\":\"$1\"[^}]*" | grep -q -- "$2"; }
button() { http POST "/api/sim/lines/$1" "{\"active\":$2}" | head -n 1 | grep -q ' 200 '; }
bursts() { crosspatch audit query "$@" --kind ptt.start,priority_ptt.start --format jsonl | wc -l; }
grants() { bursts --state-dir "$STATE" 2>/dev/null; }
granted() { [ "$(grants)" -gt "$1" ]; }

answers_from_data() { mountpoint -q "$STATE" && [ -e "$STATE/ready.json" ] && answers && fails degraded 'state directory'; }
kept_grants() { bursts --file "$STATE"/from-memory-*/audit.sqlite; }

# Which version is installed, and that the gateway runs and is of it.
version() { dpkg-query -W -f='${db:Status-Status} ${Version}' crosspatch; }
is_installed() { is "$(version)" "installed $1"; }
runs() {
  is_installed "$1" && systemctl is-active --quiet crosspatch &&
    cmp /usr/bin/crosspatch "/proc/$(systemctl show -p MainPID --value crosspatch)/exe"
}
when() { systemctl show -p "$2" --value "$1"; }
# The version was there before the gateway began, in this boot.
given_before_the_gateway() {
  local given began
  given=$(when crosspatch-update ExecMainExitTimestampMonotonic) began=$(when crosspatch ExecMainStartTimestampMonotonic)
  [ "$given" -gt 0 ] && [ "$given" -lt "$began" ] || { echo "it was there at $given us, and the gateway began at $began us"; return 1; }
}
took() { say "figure: $1 took $((SECONDS - $2)) s"; }

# The fault lamp, seen every few hundredths of a second for four of its rounds: which flashes were long, which short.
lamp() { http GET /api/sim/lines | grep -o '{[^{]*"fault.lamp"[^}]*}' | grep -q '"active":true'; }
lamp_is_misconfigured() {
  local end=$((SECONDS + 13)) was=off now at began=0 flashes=
  while [ "$SECONDS" -lt "$end" ]; do
    if lamp; then now=on; else now=off; fi
    at=$(($(date +%s%N) / 1000000))
    if [ "$was$now" = offon ]; then began=$at; fi
    if [ "$was$now" = onoff ]; then flashes+=$([ $((at - began)) -gt 500 ] && echo L || echo s); fi
    was=$now
  done
  # A slow emulator misses a short one now and then.
  case $flashes in *Ls* | *sL*) return 0 ;; *) echo "the fault lamp flashes $flashes, long and short"; return 1 ;; esac
}

# A press on the simulated board ends in a grant.
press() {
  local before button=desk.ptt.ops
  # The board of the card has its own names.
  [ "$(hostname)" != gate-1 ] || button=button.1
  before=$(grants)
  # What is down at the start counts for nothing until it was seen up (E3).
  button $button false
  holds "a button is pressed" -- button $button true
  comes "a press on the simulated line ends in a grant" -- granted "$before"
}

step=$(cat /run/host/step)
# On a slow machine it may be late, which restarts the gateway.
case $step in first | again | refused | tampered) comes "the data partition is mounted" -- mountpoint -q "$STATE" ;; esac
comes "the gateway answers" -- answers
say "figure: ready $(cut -d ' ' -f 1 /proc/uptime) s after the kernel began"
holds "the root is an overlay" -- is "$(findmnt -no FSTYPE /)" overlay
holds "the root on the card is read-only" -- fails touch "$RO/written"
holds "what is written goes to memory" -- touch /written
holds "the box takes its version and its configuration at every boot" -- is \
  "$(systemctl is-enabled crosspatch-update crosspatch-provision crosspatch | paste -sd ' ')" 'enabled enabled enabled'
# But for the first boot the card has been written to.
[ "$step" = first ] || {
  holds "the box has the name of the card" -- is "$(hostname) $(cat /etc/hostname)" 'gate-1 gate-1'
  holds "its event is that of the card" -- is "$(cat $STATE/event.json)" '{"event":"fair"}'
}
press

case $step in
  first | again | refused | tampered)
    comes "the system is up" -- systemctl is-active --quiet multi-user.target
    case $step in
      refused) expected='crosspatch-provision.service crosspatch-update.service' ;; # both say what they did not do
      tampered) expected=crosspatch-update.service ;;
      *) expected= ;;
    esac
    holds "no unit has failed but the one that must" -- is "$(systemctl list-units --failed --plain --no-legend | cut -d ' ' -f 1 | sort | paste -sd ' ')" "$expected"
    holds "it is the data partition" -- is "$(findmnt -no LABEL "$STATE")" crosspatch-data
    holds "it has grown over the card" -- [ "$(df --output=size -m "$STATE" | tail -n 1)" -gt 200 ]
    holds "nobody else reads the state" -- is "$(stat -c '%U:%G %a' "$STATE")" 'crosspatch:crosspatch 700'
    holds "the first partition is there and nobody else reads it" -- is "$(findmnt -no LABEL /boot/firmware) $(stat -c %a /boot/firmware)" 'CROSSPATCH 700'
    holds "ready.json is there" -- [ -s "$STATE/ready.json" ]
    holds "no state is in memory" -- fails degraded 'state directory'
    holds "the keys of the SSH server are kept" -- cmp /etc/ssh/ssh_host_ed25519_key "$RO/etc/ssh/ssh_host_ed25519_key"
    holds "the machine id is kept" -- cmp /etc/machine-id "$RO/etc/machine-id"
    holds "nobody gets in without a key" -- is "$(sshd -T 2>/dev/null | grep -E '^(passwordauthentication|kbdinteractiveauthentication|permitrootlogin)' | sort | paste -sd ' ')" \
      'kbdinteractiveauthentication no passwordauthentication no permitrootlogin without-password'
    holds "systemd feeds the hardware watchdog" -- is "$(cat /sys/class/watchdog/watchdog0/state)" active
    holds "the journal is in memory" -- is "$(find /var/log/journal -name "*.journal")" ""
    # Who this box is; the host compares it between boots.
    say "identity: $(sha256sum /etc/machine-id /etc/ssh/ssh_host_ed25519_key "$STATE/token.secret" | sha256sum | cut -c 1-16)"
    ;;&
  first)
    journalctl -b --no-pager -o short-monotonic >/run/out/journal
    # Something is being written and somebody talks when the power goes.
    holds "a button is held" -- button desk.ptt.medical true
    holds "the audit is whole" -- crosspatch audit verify --state-dir "$STATE"
    say "before the cut: $(grants) grants"
    dd if=/dev/zero of="$STATE/filler" bs=4k &
    say "CUT THE POWER"
    sleep 600
    ;;
  again)
    holds "the audit is whole" -- crosspatch audit verify --state-dir "$STATE"
    holds "what it said before the cut is there" -- [ "$(grants)" -ge "$(cat /run/host/grants)" ]
    holds "the card says that the box has taken its file over" -- grep -q 'Event: *fair' $CARD/crosspatch-applied.txt
    holds "the people of the card are known" -- grep -q Anna <<<"$(crosspatch person list --state-dir $STATE)"
    holds "a link for them is on the card" -- grep -q 'talk#token=' $CARD/crosspatch-links.txt
    holds "nothing is wrong with the card" -- fails ls $CARD/crosspatch-errors.txt
    rm -f $STATE/filler
    holds "no state of the gateway belongs to root" -- is "$(find $STATE -user root -not -name lost+found)" ''

    holds "the image's own version runs" -- runs "$OWN"
    holds "there was no update" -- ends 0 'There was no update yet' crosspatch update --status
    cp /run/host/1.good.deb /run/unsigned.deb
    holds "an unsigned package is refused" -- ends 65 'minisig is missing' crosspatch update /run/unsigned.deb
    since=$SECONDS
    holds "a package signed by a key on the card is taken" -- ends 0 'is kept on the data partition' crosspatch update /run/host/1.good.deb
    took "a good update" $since
    holds "it runs" -- runs "$OWN+1.good"
    since=$SECONDS
    holds "a version that does not run gives way" -- ends 69 'did not become ready' crosspatch update /run/host/2.bad.deb
    took "a bad update and the way back" $since
    holds "the version before runs again" -- runs "$OWN+1.good"
    # The power goes while a version is tried that never becomes ready, and tells nothing itself.
    crosspatch update /run/host/3.hangs.deb &
    comes "the next version is installed" -- is_installed "$OWN+3.hangs"
    comes "it is being tried" -- ends 0 "$OWN+3.hangs is being tried" /var/lib/crosspatch-update/rescue update --status
    journalctl -b --no-pager -o short-monotonic >/run/out/journal
    say "CUT THE POWER"
    sleep 600
    ;;
  refused)
    holds "the kept version runs" -- runs "$OWN+1.good"
    holds "it was there before the gateway began" -- given_before_the_gateway
    say "figure: it was installed within $(($(when crosspatch-update ExecMainExitTimestampMonotonic) - $(when crosspatch-update ExecMainStartTimestampMonotonic))) us"
    holds "what came of the update that the power ended is told" -- ends 0 "the power went before version $OWN+3.hangs was ready" crosspatch update --status
    holds "the card says which line was refused" -- grep -q '10.0.0.0/8 is no address' $CARD/crosspatch-errors.txt
    holds "the front panel says so" -- part_says configuration '10.0.0.0/8 is no address'
    holds "ready.json says so" -- grep -q '10.0.0.0/8 is no address' $STATE/ready.json
    comes "the fault lamp flashes long and short" -- lamp_is_misconfigured

    since=$SECONDS
    holds "the way back is open after a boot" -- ends 0 'the one that the card has by itself' crosspatch update --back
    took "the way back" $since
    holds "the image's own version runs" -- runs "$OWN"
    since=$SECONDS
    holds "the newest signed package of a stick is taken" -- ends 0 'is kept on the data partition' crosspatch update --stick
    took "an update from a stick" $since
    holds "it runs" -- runs "$OWN+4.stick"
    holds "the stick can be pulled out" -- fails findmnt LABEL=STICK
    # Somebody changes what is kept.
    echo >>$STATE/update/current/crosspatch.deb
    ;;
  tampered)
    holds "the image's own version runs in place of a changed one" -- runs "$OWN"
    holds "the reason is told" -- ends 0 'not installed at this boot: its signature is not of these bytes' crosspatch update --status
    holds "the front panel tells it too" -- part_says version 'its signature is not of these bytes'
    holds "nothing is wrong with the card any more" -- fails ls $CARD/crosspatch-errors.txt
    holds "the front panel says so" -- fails degraded configuration
    # As it was, for the next boot.
    truncate -s -1 $STATE/update/current/crosspatch.deb
    holds "it would be installed again" -- ends 0 "The next boot installs version $OWN+4.stick" crosspatch update --status
    ;;
  damaged)
    holds "the damaged data partition is not mounted" -- fails mountpoint -q "$STATE"
    holds "the image's own version runs" -- runs "$OWN"
    holds "what is kept is not known" -- ends 0 'is not known: the data partition is not there' crosspatch update --status
    holds "the gateway says that it runs from memory" -- degraded 'state directory'
    ;;
  missing)
    holds "there is no data partition" -- fails mountpoint -q "$STATE"
    holds "the gateway says that it runs from memory" -- degraded 'state directory'
    # It comes late: a new file system on the old partition, told as a new disk is.
    kept=$(grants)
    disk=$(lsblk -nro PATH,PARTN | awk '$2 == 3 { print $1 }')
    holds "a data partition comes late" -- mke2fs -q -F -L crosspatch-data "$disk"
    udevadm trigger --action=add "$disk"
    comes "the gateway moves there" -- answers_from_data
    holds "what it wrote to memory is kept beside the data" -- [ "$(kept_grants)" -ge "$kept" ]
    press
    ;;
esac

holds "the root on the card is still read-only" -- mounted_read_only $RO
holds "the first partition is read-only" -- mounted_read_only $CARD
journalctl -b --no-pager -o short-monotonic >/run/out/journal
if [ "$FAULTS" = 0 ]; then say "VERDICT: passed"; else say "VERDICT: $FAULTS wrong"; fi
sync
systemctl poweroff
