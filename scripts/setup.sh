#!/bin/bash
# setup.sh: all that NovaCron's lab needs on Debian 12: packages, the virtual environment .venv, the guest.
# Does only what is missing, so a second run costs a moment. PYTHON chooses the interpreter (3.11 or newer).
# `setup.sh azurite` gets what `make test-azurite` needs as well: Microsoft's emulator of blobs, from npm.
# `setup.sh boot` gets what `make test-boot` needs as well: the tools that build a small Debian, and that Debian.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
lab=${NOVACRON_LAB_DIR:-/var/lib/novacron/lab}
python=${PYTHON:-python3}
step() { echo "setup: $*"; }
fail() { echo "setup: FAILED: $*" >&2; exit 1; }

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; return; fi
  command -v sudo >/dev/null || fail "not root and no sudo: run as root, or install sudo"
  sudo "$@"
}

# Its own words only when it fails.
quietly() {
  local log
  log=$(mktemp)
  if ! "$@" >"$log" 2>&1; then
    tail -25 "$log" >&2
    rm -f "$log"
    fail "\`$*\`; its last words are above"
  fi
  rm -f "$log"
}

packages=(
  qemu-system-x86 qemu-utils libvirt-daemon libvirt-daemon-system libvirt-daemon-driver-qemu libvirt-clients
  libvirt-dev libxxhash-dev pkg-config gcc libc6-dev python3-venv python3-dev busybox-static cpio iproute2 zstd
  python3-pyverbs ibverbs-providers ibverbs-utils kmod binutils postgresql
)
boot_packages=(mmdebstrap fdisk dosfstools mtools ovmf)
if [ "${1:-}" = boot ]; then packages+=("${boot_packages[@]}"); fi
# Node may be there from elsewhere than Debian, whose npm would then not go with it.
if [ "${1:-}" = azurite ] && ! command -v npm >/dev/null; then packages+=(nodejs npm); fi
install_packages() {
  command -v dpkg-query >/dev/null || fail "this is not Debian: install the like of: ${packages[*]}"
  local missing=() package
  for package in "${packages[@]}"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
  done
  [ ${#missing[@]} = 0 ] && return
  step "installing ${missing[*]}"
  # Tests start a PostgreSQL of their own: Debian need not make and start one for the whole machine.
  if [[ " ${missing[*]} " == *" postgresql "* ]]; then
    as_root mkdir -p /etc/postgresql-common/createcluster.d
    echo "create_main_cluster = false" | as_root tee /etc/postgresql-common/createcluster.d/novacron.conf >/dev/null
  fi
  quietly as_root apt-get update -q
  quietly as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}"
}

# The guest's kernel is unpacked, not installed: this machine must not boot it. One that is installed serves as well.
get_kernel() {
  if compgen -G "/boot/vmlinuz-*-cloud-amd64" >/dev/null; then kernel_root=/; return; fi
  kernel_root=$lab/kernel
  compgen -G "$kernel_root/boot/vmlinuz-*-cloud-amd64" >/dev/null && return
  apt-cache show linux-image-cloud-amd64 >/dev/null 2>&1 || quietly as_root apt-get update -q
  local package folder
  package=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: \(linux-image-.*\)/\1/p' | head -1)
  [ -n "$package" ] || fail "no package linux-image-cloud-amd64: is Debian's main archive in /etc/apt/sources.list.d?"
  step "fetching the guest's kernel, $package"
  folder=$(mktemp -d)
  (cd "$folder" && quietly apt-get download -q "$package")
  quietly as_root dpkg-deb -x "$folder"/linux-image-*.deb "$kernel_root.new"
  as_root rm -rf "$kernel_root"
  as_root mv "$kernel_root.new" "$kernel_root"
  rm -rf "$folder"
}

# Prometheus is unpacked, not installed: Debian's package would start a server on this machine (20 MB, 96 MB unpacked).
get_prometheus() {
  [ -x "$lab/prometheus/usr/bin/promtool" ] && return
  apt-cache show prometheus >/dev/null 2>&1 || quietly as_root apt-get update -q
  step "fetching prometheus"
  local folder
  folder=$(mktemp -d)
  (cd "$folder" && quietly apt-get download -q prometheus)
  quietly as_root dpkg-deb -x "$folder"/prometheus_*.deb "$lab/prometheus.new"
  as_root rm -rf "$lab/prometheus"
  as_root mv "$lab/prometheus.new" "$lab/prometheus"
  rm -rf "$folder"
}

# 374 packages, 190 MB; their install scripts are not run. No lock file: it would name the registry that was asked.
azurite_version=3.35.0  # the newest that runs on Node 20
get_azurite() {
  local there=$lab/azurite/node_modules/azurite/package.json
  grep -qs "\"version\": \"$azurite_version\"" "$there" && return
  step "installing azurite $azurite_version"
  as_root rm -rf "$lab/azurite"
  as_root mkdir -p "$lab/azurite"
  quietly as_root timeout 600 npm install --prefix "$lab/azurite" --ignore-scripts --no-audit --no-fund \
    --no-package-lock --no-save "azurite@$azurite_version"
}

make_venv() {
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "$python is older than 3.11: set PYTHON"
  local stamp
  stamp=$(cat pyproject.toml setup.py constraints.txt dwcp/encoding/*.[ch] <("$python" -VV) | sha256sum)
  [ "$(cat .venv/.setup 2>/dev/null)" = "$stamp" ] && return
  if [ ! -x .venv/bin/python ]; then
    step "making .venv with $("$python" -V)"
    quietly "$python" -m venv .venv
  fi
  step "installing Python packages into .venv"
  quietly .venv/bin/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[aws,azure,gcp,kvm,lab,postgres,otel,dev]'
  # Oracle's SDK is 18,000 modules, of which four are used: compiling them all takes three minutes, these a second.
  quietly .venv/bin/python -m pip install -q --disable-pip-version-check --no-compile -c constraints.txt -e '.[oci]'
  echo "$stamp" >.venv/.setup
}

# Every run of a workflow loads its modules anew in a sandbox: from source that takes three times as long, and an
# environment that forbids Python to write bytecode (PYTHONDONTWRITEBYTECODE) would leave it at that.
compile_ahead() { .venv/bin/python -m compileall -q models dwcp clouds activities workflows workers novacron; }

begun=$SECONDS
install_packages
make_venv
compile_ahead
[ -d "$lab" ] || as_root mkdir -p "$lab"
get_kernel
get_prometheus
guest/build.sh "$lab/guest" "$kernel_root" check || as_root guest/build.sh "$lab/guest" "$kernel_root"
tests/rdma/guest/build.sh "$lab/rdma" check || as_root tests/rdma/guest/build.sh "$lab/rdma"
if [ "${1:-}" = azurite ]; then get_azurite; fi
if [ "${1:-}" = boot ]; then guest/debian.sh "$lab/debian" check || as_root guest/debian.sh "$lab/debian"; fi
step "ready ($((SECONDS - begun)) s)"
