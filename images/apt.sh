#!/bin/sh
# Installs the Debian packages "$@". They are of the day on which the base image was made: the
# digest of the base image pins them too. Docker's images name that day's snapshot of Debian in a
# comment above each source; its signed index holds the hash of each package. A base image without
# such comments uses the sources that it has.
#   SOURCES   a folder with Debian's sources, in place of the usual one; nothing is installed then
set -eu
folder=${SOURCES:-/etc/apt/sources.list.d}
for file in "$folder"/*.sources; do
  [ ! -e "$file" ] ||
    sed -i -e '/^# *http:\/\/snapshot\.debian\.org\//{N;s/^# *\(.*\)\nURIs: .*/URIs: \1/}' "$file"
done
[ -z "${SOURCES:-}" ] || exit 0
# An old snapshot's index has passed its date; its signature still holds.
apt-get -qq -o Acquire::Check-Valid-Until=false update
DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "$@" >/dev/null
rm -rf /var/lib/apt/lists/* /var/cache/apt /var/log/dpkg.log /var/log/apt
