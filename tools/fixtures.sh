#!/bin/sh
# Installs what tests need beside Python packages: PostgreSQL, and the npm packages of every package-lock.json under tests/.
# A lock whose packages are compiled (aws-lambda-ric) first gets the compiler and build tools as Debian packages. What cannot be
# installed is said in one line and left out; the tests that need it then skip themselves. A stamp in node_modules makes it cheap.
set -eu

# The tests run servers of their own; the package brings the programs.
if ! command -v postgres >/dev/null 2>&1 && ! ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1; then
    tools/apt.sh postgresql || echo "kappa: no PostgreSQL server: its tests are skipped"
fi

if ! npm --version >/dev/null 2>&1; then
    echo "kappa: no npm on PATH: tests with npm packages are skipped"
    exit 0
fi

# aws-lambda-ric compiles curl. The make that called this may have left flags here that name descriptors npm does not pass on.
MAKEFLAGS=-j$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
export MAKEFLAGS

log=$(mktemp)
trap 'rm -f "$log"' EXIT

has_build_tools() {
    for tool in cc c++ cmake autoconf automake make; do
        command -v "$tool" >/dev/null 2>&1 || return 1
    done
    command -v libtoolize >/dev/null 2>&1 || command -v glibtoolize >/dev/null 2>&1
}

find tests -name node_modules -prune -o -name package-lock.json -print | sort | while read -r lock; do
    folder=$(dirname "$lock")
    stamp=$folder/node_modules/.installed-from
    if [ -f "$stamp" ] && cmp -s "$lock" "$stamp"; then
        continue
    fi
    if grep -q '"node_modules/aws-lambda-ric"' "$lock" && ! has_build_tools; then
        tools/apt.sh gcc g++ make cmake autoconf automake libtool || true
        if ! has_build_tools; then
            echo "kappa: $folder: no compiler, cmake, autoconf, automake and libtool to build aws-lambda-ric with: its tests are skipped"
            continue
        fi
    fi
    echo "kappa: npm ci in $folder"
    if (cd "$folder" && npm ci --no-audit --no-fund --loglevel=error) >"$log" 2>&1 </dev/null; then
        cp "$lock" "$stamp"
    else
        rm -rf "$folder/node_modules"
        echo "kappa: $folder: npm ci failed ($(grep -m 1 -i error "$log" | cut -c 1-160)): its tests are skipped"
    fi
done
