#!/usr/bin/env bash
# Make a virtual environment with the newest Python that the requirements are tested on, or with $PYTHON.
set -euo pipefail

venv=$1

# A shim may exist for a version that is not installed, so each is asked, not looked up.
for python in ${PYTHON:-python3.13 python3.12 python3.11 python3}; do
  if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    # Debian keeps ensurepip in a package of its own.
    if ! "$python" -c 'import ensurepip' 2>/dev/null; then
      "$(dirname "$0")/debian-packages.sh" python3-venv
    fi
    echo "Making $venv with $("$python" --version) …"
    # A half-made environment must not look like a made one.
    rm -rf "$venv"
    trap 'rm -rf "$venv"' ERR
    "$python" -m venv "$venv"
    exit 0
  fi
done

echo "mailmill needs Python 3.11 or newer, and found none as ${PYTHON:-python3.13, python3.12, python3.11 or python3}." >&2
exit 1
