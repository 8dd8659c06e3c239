#!/bin/sh
# Removes from the virtual environment $1 what no stage needs. images/check.py then shows that all
# the rest still works.
set -eu
cd "$1"/lib/python3*/site-packages

# The installers.
rm -f "$1"/bin/pip* "$1"/bin/wheel
rm -rf pip pip-*.dist-info setuptools setuptools-*.dist-info pkg_resources _distutils_hack \
  distutils-precedence.pth wheel wheel-*.dist-info
# Arrow's RPC service and its own S3 client (ours is boto3). Substrait stays: all of pyarrow links
# it. A wheel holds no links, so each of its libraries has copies under names that only linkers use.
rm -rf pyarrow/*flight* pyarrow/*arrow_s3* pyarrow/_s3fs* pyarrow/src
rm -f pyarrow/libarrow_python*.so pyarrow/libarrow_python*.so.*.*
# The second backend of zstandard, for Pythons other than CPython.
rm -f zstandard/_cffi.*
# Where telephone numbers are from, and whose: they are only found and masked.
rm -rf phonenumbers/geodata phonenumbers/carrierdata phonenumbers/tzdata
# AWS services other than S3 and the ways to get its keys.
find botocore/data -mindepth 1 -maxdepth 1 -type d \
  ! -name s3 ! -name sts ! -name sso ! -name sso-oidc -exec rm -r {} +
# The libraries' own tests, and what only compilers read.
find . -type d \( -name tests -o -name include \) -prune -exec rm -r {} +
find . -type f \( -name '*.pyx' -o -name '*.pxd' -o -name '*.pxi' -o -name '*.pyi' \
  -o -name '*.[ach]' \) -delete
# numpy's modules for its own tests.
rm -f numpy/_core/_simd.* numpy/_core/*_tests.*.so
# Debug symbols. The folders *.libs hold libraries that auditwheel has rewritten: stripped, they
# cannot be loaded.
find . -type d -name '*.libs' -prune -o -type f -name '*.so*' -exec strip --strip-unneeded {} +
