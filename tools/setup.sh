#!/bin/sh
# Creates the virtualenv and installs the given requirement files and Kappa itself into it. Called by the Makefile, which decides when.
# Every package comes with its hash from requirements/; nothing is built or fetched outside of that. It says in one line what is wrong
# when it cannot: no Python that is new enough, no venv module, no network.
set -eu

venv=${VENV:-.venv}
log=$venv/install.log

fail() {
    echo "kappa: $*" >&2
    exit 1
}

new_enough() {
    # A version manager's shim can be on PATH and still not run: only an interpreter that answers counts.
    command -v "$1" >/dev/null 2>&1 && "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        new_enough "$PYTHON" || fail "PYTHON=$PYTHON is not a Python of 3.11 or newer that runs"
        echo "$PYTHON"
        return
    fi
    for candidate in python3 python3.14 python3.13 python3.12 python3.11; do
        if new_enough "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    fail "Python 3.11 or newer is needed and none was found (python3 is: $(python3 --version 2>/dev/null || echo missing))"
}

create() {
    "$1" -m venv "$venv" >/dev/null 2>&1 && return
    # Debian and Ubuntu ship the interpreter without the part that makes virtualenvs.
    rm -rf "$venv"
    package=$("$1" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
    tools/apt.sh "$package" && "$1" -m venv "$venv" >/dev/null 2>&1 && return
    rm -rf "$venv"
    fail "$1 cannot create virtualenvs; install $package (Debian, Ubuntu) and try again"
}

if ! "$venv/bin/python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
    python=$(find_python)
    echo "kappa: creating $venv with $("$python" --version 2>&1)"
    rm -rf "$venv"
    create "$python"
fi

install() {
    PIP_DISABLE_PIP_VERSION_CHECK=1 "$venv/bin/python" -m pip install --no-input --progress-bar off "$@" >>"$log" 2>&1 </dev/null && return
    reason=$(grep -E '^ *ERROR:|^error:' "$log" | head -n 1 | cut -c 1-200)
    if grep -q -E 'NewConnectionError|Temporary failure in name resolution|ConnectTimeoutError|Network is unreachable' "$log"; then
        reason="the package index cannot be reached; is this machine online?"
    fi
    fail "cannot install the dependencies: ${reason:-see} (whole log: $log)"
}

echo "kappa: installing into $venv (a minute or two the first time)"
: >"$log"
files=
for file in "$@"; do
    files="$files -r $file"
    # Most of what the tests bring along is never imported; what is, is compiled then.
    case $file in */dev.txt) files="--no-compile $files" ;; esac
done
# shellcheck disable=SC2086 # one option and one name per file, none with spaces
install --require-hashes $files
install --no-deps --no-build-isolation --editable .
