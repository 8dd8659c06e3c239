#!/bin/sh
# Removes from the base image what only installs software or lets users log in: the image installs
# nothing and runs as one numeric user. dpkg's list of packages stays correct for scanners.
set -eu
unwanted='apt|libapt-pkg.*|gpgv|sqv|debian-archive-keyring|debconf|adduser
perl|perl-.*|libperl.*|usrmerge|lib(file-find-rule|number-compare|text-glob)-perl
login|passwd|e2fsprogs|libext2fs.*|logsave|mount
python3-(pip|setuptools|wheel|pkg-resources)(-whl)?|python3(\.[0-9]+)?-venv|python3-(lib2to3|distutils)'
packages=$(dpkg-query -W -f '${Package}\n' | grep -xE "$(echo "$unwanted" | paste -sd '|')")
# Their scripts need one another. All that they would undo goes below.
(cd /var/lib/dpkg/info && rm -f -- *.prerm *.postrm)
# shellcheck disable=SC2086
dpkg --purge --force-depends --force-remove-essential --force-remove-protected $packages \
  >/tmp/trim.log 2>&1 || { cat /tmp/trim.log >&2; exit 1; }
rm -rf /usr/lib/python3/dist-packages/* /usr/local/lib/python3*/site-packages/* \
  /usr/local/lib/python3*/ensurepip /usr/local/bin/pip* /tmp/trim.log
rm -rf /var/cache/debconf /var/cache/apt /var/lib/apt /var/log/* /var/lib/dpkg/*-old
# Converters of character sets for the C library; Python has its own.
rm -rf /usr/lib/*-linux-gnu/gconv
