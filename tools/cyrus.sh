#!/usr/bin/env bash
# Fetch Cyrus and unpack it into a private folder: .cache/cyrus, or the folder that is named.
#
# Debian's Cyrus cannot be installed beside its Dovecot, and the tests want both. Nothing is installed and nothing is run:
# packages are downloaded by name through apt (which checks its archive's signatures and hashes), together with the
# libraries that they need and this machine lacks, and unpacked. Root is not needed. At once done where it was done before.
set -euo pipefail
cd "$(dirname "$0")/.."

# To be raised when what is unpacked changes: an older folder is then made anew.
edition=1

folder=${1:-.cache/cyrus}
[[ $(cat "$folder/.edition" 2>/dev/null || true) == "$edition" ]] && exit 0

give_up() {
  echo "$1 The tests need Cyrus: on Debian, $0 fetches it through apt." >&2
  exit 1
}
command -v apt-get >/dev/null && command -v dpkg >/dev/null || give_up "This machine has no apt."

mkdir -p "$(dirname "$folder")"
folder=$(cd "$(dirname "$folder")" && pwd)/$(basename "$folder")
work=$(mktemp -d "$folder.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial" "$work/archives/partial" "$work/packages" "$work/root"
chmod 755 "$work" "$work/root"

# apt's own caches are root's. The sandbox user could not write here, and what comes is checked all the same.
options=(--quiet=2 -o Dir::Cache="$work" -o APT::Sandbox::User=root)

installed() { [[ $(dpkg-query --show --showformat '${db:Status-Status}' "$1" 2>/dev/null || true) == installed ]]; }

# The packages named and, of what they depend on, the libraries that are not installed. A level at a time: each question
# to apt takes a second.
closure() {
  local -A seen=()
  local level=("$@") name needed
  while [[ ${#level[@]} -gt 0 ]]; do
    for name in "${level[@]}"; do seen[$name]=1; done
    needed=$(apt-cache "${options[@]}" depends --important "${level[@]}" | sed -n 's/^  Depends: \(lib[^<]*\)$/\1/p' | sort -u)
    level=()
    for name in $needed; do
      [[ -n ${seen[$name]:-} ]] || installed "$name" || level+=("$name")
    done
  done
  echo "${!seen[@]}"
}

fetch() {
  local names
  names=$(closure cyrus-imapd cyrus-common) && [[ -n $names ]] || return 1
  # shellcheck disable=SC2086 # one word each
  (cd "$work/packages" && apt-get "${options[@]}" download $names)
}

echo "Fetching Cyrus into ${folder#"$PWD"/} …"
if ! fetch 2>/dev/null; then
  # The machine's lists are missing, or name versions that are gone: a copy of our own, which needs no root.
  rm -f "$work"/packages/*
  options+=(-o Dir::State::Lists="$work/lists")
  apt-get "${options[@]}" update </dev/null || give_up "apt-get update failed."
  fetch || give_up "Downloading failed."
fi

for package in "$work"/packages/*.deb; do
  dpkg --extract "$package" "$work/root"
done
echo "$edition" >"$work/root/.edition"
rm -rf "$folder"
# Another run may have been as quick: either's is good.
mv --no-target-directory "$work/root" "$folder" 2>/dev/null || [[ -e $folder/.edition ]]
