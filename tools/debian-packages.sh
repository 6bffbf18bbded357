#!/usr/bin/env bash
# Install the Debian packages that are named and missing.
#
# Without a question as root, in CI and where nobody sits at a terminal; after one where somebody does; through sudo where
# needed. Where none of it works: one line that says what to do, and exit code 1.
set -euo pipefail

# The program by which a package is known to be there, however it was installed.
program_of() {
  case $1 in
    dovecot-imapd) echo "dovecot" ;;
    chromium) echo "chromium" ;;
    isync) echo "mbsync" ;;
    nodejs) echo "node" ;;
    npm) echo "npm" ;;
    postgresql) echo "postgres" ;;
    pgbouncer) echo "pgbouncer" ;;
    redis-server) echo "redis-server" ;;
    faketime) echo "faketime" ;;
    *) echo "" ;;
  esac
}

is_there() {
  local program
  program=$(program_of "$1")
  if [[ -n $program ]] && PATH="$PATH:/usr/sbin:/usr/local/sbin" command -v "$program" >/dev/null; then
    return 0
  fi
  # PostgreSQL's programs lie in a folder for each version.
  [[ $program == postgres ]] && compgen -G "/usr/lib/postgresql/*/bin/postgres" >/dev/null && return 0
  [[ $(dpkg-query --show --showformat '${db:Status-Status}' "$1" 2>/dev/null || true) == installed ]]
}

give_up() {
  echo "$1 Install ${missing[*]} and run make again (Debian: apt-get install ${missing[*]})." >&2
  exit 1
}

missing=()
for package in "$@"; do
  is_there "$package" || missing+=("$package")
done
[[ ${#missing[@]} -eq 0 ]] && exit 0

command -v apt-get >/dev/null || give_up "This machine has no apt-get."

as_root=()
if [[ $(id -u) -ne 0 ]]; then
  command -v sudo >/dev/null || give_up "Installing packages needs root, and there is no sudo."
  if [[ ${CI:-} != true && -t 0 && -t 2 ]]; then
    read -r -p "Install the Debian packages ${missing[*]} with sudo? [Y/n] " answer
    [[ -z $answer || $answer == [Yy]* ]] || give_up "Nothing was installed."
    as_root=(sudo)
  else
    sudo --non-interactive true 2>/dev/null || give_up "Installing packages needs root, and sudo asks for a password."
    as_root=(sudo --non-interactive)
  fi
fi

apt() {
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get --quiet --quiet "$@" </dev/null
}

# The lists are read again where they are missing or older than a day.
if [[ -z $(find /var/lib/apt/lists -maxdepth 1 -name '*_Packages*' -mtime -1 -print -quit 2>/dev/null) ]]; then
  apt update || give_up "apt-get update failed."
fi

echo "Installing ${missing[*]} …"
install() { apt install --yes --no-install-recommends "${missing[@]}" >/dev/null; }
# A list that is a few hours old may name a version that the mirror no longer has.
install || { apt update && install; } || give_up "apt-get install failed."

# Debian starts what it installs. The tests start servers of their own; nobody asked for one on port 143 or 5432.
if [[ -d /run/systemd/system ]]; then
  for package in "${missing[@]}"; do
    case $package in
      dovecot-imapd) units=(dovecot.service dovecot.socket) ;;
      postgresql) units=(postgresql.service) ;;
      pgbouncer) units=(pgbouncer.service) ;;
      *) continue ;;
    esac
    "${as_root[@]}" systemctl disable --now --quiet "${units[@]}" 2>/dev/null || true
  done
fi
