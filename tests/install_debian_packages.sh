#!/usr/bin/env bash
# Install the Debian packages that some tests need, when this user may; otherwise those tests say why they are skipped.
set -u
packages=(chromium nodejs faketime slurm-wlm slurmctld slurmd slurm-client munge slurmdbd mariadb-server)
missing=()
for package in "${packages[@]}"; do
  dpkg-query --show --showformat='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
# Some packages of Node bring npm along.
command -v npm >/dev/null || missing+=(npm)
[ ${#missing[@]} -eq 0 ] && exit 0
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
  echo "note: ${missing[*]} not installed (needs root: apt-get install ${missing[*]}); the tests that need it are skipped"
  exit 0
fi
echo "installing Debian packages: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq >/dev/null && apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null ||
  echo "note: ${missing[*]} could not be installed; the tests that need it are skipped"
