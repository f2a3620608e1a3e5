#!/bin/bash
# What is proved in a box that started from the image. tests/vm/image boots it and says by /run/host/step which boot this is.
# What is said here is read there; the last line is a verdict.
set -u
STATE=/var/lib/crosspatch RO=/run/root/ro
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
# The same, within two minutes; the emulator is slow.
comes() {
  local what=$1 deadline=$((SECONDS + 120))
  shift 2
  until "$@" >/run/comes 2>&1; do
    [ "$SECONDS" -lt "$deadline" ] || { wrong "$what never happened: $* says: $(tail -n 5 /run/comes)"; return; }
    sleep 0.3
  done
  passed "$what"
}
is() { [ "$1" = "$2" ] || { echo "it is '$1', not '$2'"; return 1; }; }
fails() { ! "$@"; }

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
button() { http POST "/api/sim/lines/$1" "{\"active\":$2}" | head -n 1 | grep -q ' 200 '; }
bursts() { crosspatch audit query "$@" --kind ptt.start,priority_ptt.start --format jsonl | wc -l; }
grants() { bursts --state-dir "$STATE" 2>/dev/null; }
granted() { [ "$(grants)" -gt "$1" ]; }

answers_from_data() { mountpoint -q "$STATE" && [ -e "$STATE/ready.json" ] && answers && fails degraded 'state directory'; }
kept_grants() { bursts --file "$STATE"/from-memory-*/audit.sqlite; }

# A press on the simulated board ends in a grant.
press() {
  local before
  before=$(grants)
  # What is down at the start counts for nothing until it was seen up (E3).
  button desk.ptt.ops false
  holds "a button is pressed" -- button desk.ptt.ops true
  comes "a press on the simulated line ends in a grant" -- granted "$before"
}

step=$(cat /run/host/step)
# On a slow machine it may be late, which restarts the gateway.
case $step in first | again) comes "the data partition is mounted" -- mountpoint -q "$STATE" ;; esac
comes "the gateway answers" -- answers
say "figure: ready $(cut -d ' ' -f 1 /proc/uptime) s after the kernel began"
holds "the root is an overlay" -- is "$(findmnt -no FSTYPE /)" overlay
holds "the root on the card is read-only" -- fails touch "$RO/written"
holds "what is written goes to memory" -- touch /written
press

case $step in
  first | again)
    comes "the system is up" -- systemctl is-active --quiet multi-user.target
    holds "no unit has failed" -- is "$(systemctl list-units --failed --plain --no-legend)" ''
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
    ;;
  damaged)
    holds "the damaged data partition is not mounted" -- fails mountpoint -q "$STATE"
    holds "the gateway says that it runs from memory" -- degraded 'state directory'
    ;;
  missing)
    holds "there is no data partition" -- fails mountpoint -q "$STATE"
    holds "the gateway says that it runs from memory" -- degraded 'state directory'
    # It comes late: a new file system on the old partition, as after a disk that took its time.
    kept=$(grants)
    disk=$(lsblk -nro PATH,PARTN | awk '$2 == 3 { print $1 }')
    holds "a data partition comes late" -- mke2fs -q -F -L crosspatch-data "$disk"
    udevadm trigger --action=change "$disk"
    comes "the gateway moves there" -- answers_from_data
    holds "what it wrote to memory is kept beside the data" -- [ "$(kept_grants)" -ge "$kept" ]
    press
    ;;
esac

journalctl -b --no-pager -o short-monotonic >/run/out/journal
if [ "$FAULTS" = 0 ]; then say "VERDICT: passed"; else say "VERDICT: $FAULTS wrong"; fi
sync
systemctl poweroff
