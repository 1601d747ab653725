#!/bin/sh
# Builds the fixture programs of the tests, or the named ones, and prints their paths.
# They are kept in the user's cache folder; what did not change is not built again.
set -eu
cd "$(dirname "$0")/../../images/build"
[ $# -gt 0 ] || set -- fixtures
exec go run . programs "$@"
