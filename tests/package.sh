#!/usr/bin/env bash
# Installs, upgrades, removes and purges the package in a root of its own, and looks after each step. As root.
# usage: tests/package.sh DEB NEWER_DEB ROOT.tar
set -euo pipefail
DEB=$1 NEWER=$2 TAR=$3
ROOT=$(mktemp -d)
trap 'rm -rf "$ROOT"' EXIT

fail() { printf 'the package: %s\n' "$*" >&2; exit 1; }
step() { printf '    %s\n' "$*" >&2; }
inside() { chroot "$ROOT" "$@"; }
install_deb() {
  cp "$1" "$ROOT/tmp/new.deb"
  inside env DEBIAN_FRONTEND=noninteractive dpkg --install /tmp/new.deb >"$ROOT/tmp/dpkg.log" 2>&1 \
    || { cat "$ROOT/tmp/dpkg.log" >&2; fail "dpkg refuses $1"; }
}
version() { inside dpkg-query -W -f='${Version}' crosspatch; }

tar -xpf "$TAR" -C "$ROOT" --numeric-owner
# Nothing is started here: that a service runs is another test's business.
printf '#!/bin/sh\nexit 101\n' >"$ROOT/usr/sbin/policy-rc.d"
chmod 755 "$ROOT/usr/sbin/policy-rc.d"
CONFIG=$ROOT/etc/crosspatch/crosspatch.toml STATE=$ROOT/var/lib/crosspatch

step "installing"
install_deb "$DEB"
inside crosspatch check --config /etc/crosspatch/crosspatch.toml >/dev/null || fail "its first configuration is faulty"
# As every boot does, before the unit.
systemd-tmpfiles --root="$ROOT" --create crosspatch.conf
[ "$(inside stat -c '%U:%G %a' /var/lib/crosspatch)" = 'crosspatch:crosspatch 700' ] || fail "the state directory is open to others"
for group in audio dialout gpio; do
  inside id -nG crosspatch | grep -qw "$group" || fail "its user is not in group $group"
done
[ -L "$ROOT/etc/systemd/system/multi-user.target.wants/crosspatch.service" ] || fail "it does not start at boot"
inside bash -n /usr/share/bash-completion/completions/crosspatch || fail "bash does not read its completions"
for page in crosspatch crosspatch-run crosspatch-check; do
  [ -s "$ROOT/usr/share/man/man1/$page.1.gz" ] || fail "there is no man page $page"
done
for board in "$(dirname "$0")"/../board/*.toml; do
  cmp -s "$board" "$ROOT/usr/share/crosspatch/board/$(basename "$board")" || fail "$board is not in it"
done
# A box without internet has its manual, all of it, and every link in it leads somewhere.
MANUAL=$ROOT/usr/share/doc/crosspatch
diff -r "$(dirname "$0")/../docs" "$MANUAL/docs" >&2 || fail "its manual is not the whole one"
for page in "$MANUAL"/*.md "$MANUAL"/docs/*.md; do
  while read -r link; do
    [ -e "$(dirname "$page")/$link" ] || fail "${page#"$MANUAL/"} leads to $link, which is not in it"
    links=$((${links:-0} + 1))
  done < <(grep -o '](\([^)#]*\)' "$page" | sed 's/^](//' | grep -v -e '^$' -e '^https*:')
done
[ "${links:-0}" -gt 30 ] || fail "its manual has no links any more: ${links:-0}"

step "upgrading"
echo '# a technician was here' >>"$CONFIG"
: >"$STATE/audit.sqlite"
install_deb "$NEWER"
[ "$(version)" != "$(dpkg-deb -f "$DEB" Version)" ] || fail "the version did not change"
tail -n 1 "$CONFIG" | grep -q technician || fail "the upgrade changed the configuration"
[ -e "$STATE/audit.sqlite" ] || fail "the upgrade lost the audit"

# A key of another version is refused with its line and what to write in its place, and the gateway is told so before it starts.
sed 's/^emergency_hold_ms/emergency_hold/' "$CONFIG" >"$ROOT/tmp/old.toml"
told=$(inside crosspatch check --config /tmp/old.toml 2>&1) && fail "it takes a key that it does not know"
grep -q 'old.toml:4: unknown field `emergency_hold`.*write `emergency_hold_ms`' <<<"$told" || fail "it refuses a key without saying what to write: $told"

step "removing"
inside dpkg --remove crosspatch >/dev/null 2>&1 || fail "it cannot be removed"
[ ! -e "$ROOT/usr/bin/crosspatch" ] || fail "the program is still there"
{ [ -e "$CONFIG" ] && [ -e "$STATE/audit.sqlite" ]; } || fail "removing lost configuration or audit"

step "purging"
inside dpkg --purge crosspatch >/dev/null 2>&1 || fail "it cannot be purged"
left=$(find "$ROOT" -xdev -name '*crosspatch*' -not -path '*/tmp/*')
[ -z "$left" ] || fail "this is left after purging: $left"
