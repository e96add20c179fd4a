#!/bin/sh
# Puts the noVNC core that package-lock.json pins into novnc/ beside this file. Quick when it is there already;
# the folder appears whole or not at all, also when two of these run at once.
set -eu
cd "$(dirname "$0")"

wanted=$(sha256sum package-lock.json | cut -d' ' -f1)
[ "$(cat novnc/.lock-sha256 2>/dev/null || true)" != "$wanted" ] || exit 0

exec 9<.
flock 9
[ "$(cat novnc/.lock-sha256 2>/dev/null || true)" != "$wanted" ] || exit 0

work=$(mktemp -d ./novnc.XXXXXX)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
cp package.json package-lock.json "$work/"
(cd "$work" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error 9<&-)

from=$work/node_modules/@novnc/novnc
mkdir "$work/novnc"
cp -R "$from/core" "$from/vendor" "$from/LICENSE.txt" "$from/AUTHORS" "$work/novnc/"
echo "$wanted" >"$work/novnc/.lock-sha256"
chmod -R u=rwX,go=rX "$work/novnc"
[ ! -e novnc ] || mv novnc "$work/old"
mv "$work/novnc" novnc
