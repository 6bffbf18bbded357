#!/usr/bin/env bash
# Write requirements/*.txt: pinned, with hashes, for every platform and Python from 3.11 on, naming no registry.
set -euo pipefail

uv=$1
shift

compile() {
  local output=$1
  shift
  "$uv" pip compile "$@" --output-file "requirements/$output" --quiet --universal --python-version 3.11 \
    --generate-hashes --no-emit-index-url --no-emit-find-links --custom-compile-command "make requirements"
}

# The larger set first: what both name has one version.
compile test.txt pyproject.toml --extra test "$@"
compile demo.txt pyproject.toml --extra demo --constraint requirements/test.txt "$@"
compile fuzz.txt pyproject.toml --extra fuzz --constraint requirements/test.txt "$@"
echo "setuptools>=77" | compile build.txt - "$@"
echo "uv" | compile uv.txt - "$@"
