#!/bin/sh
# Makes launcher.jar beside this file, for Java 7 and later. Quick when it is there already; it appears whole or not at all.
set -eu
cd "$(dirname "$0")"

wanted=$(cat ./*.java | sha256sum | cut -d' ' -f1)
[ "$(cat launcher.sha256 2>/dev/null || true)" != "$wanted" ] || [ ! -e launcher.jar ] || exit 0

work=$(mktemp -d ./launcher.XXXXXX)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
# Java 20 and later make nothing for Java 7 any more.
for release in 7 8; do
    if javac --release "$release" -nowarn -Xlint:none -d "$work/classes" ./*.java 2>"$work/said"; then break; fi
    [ "$release" = 7 ] || { cat "$work/said" >&2; exit 1; }
done
jar cf "$work/launcher.jar" -C "$work/classes" .
chmod 0644 "$work/launcher.jar"
mv "$work/launcher.jar" launcher.jar
echo "$wanted" >launcher.sha256
