# Sourced by the scripts, from the root of the repository: installs everything that a build needs on
# a fresh Debian machine, and names each package. On a machine that has everything it does nothing.
# shellcheck shell=bash

# RocksDB is C++, and libclang generates its bindings. ccache compiles it once instead of once for
# each build directory.
setup_packages=(libclang-dev clang ccache g++ make curl ca-certificates)
# The partition-testing harness cuts links, delays packets, cuts power and changes clocks with these
# (jepsen/README.md).
setup_packages+=(nftables iptables iproute2 faketime e2fsprogs util-linux mount xfsprogs)
# tests/run checks the shell scripts.
setup_packages+=(shellcheck)
# The minor version of Rust that the edition, language features and dependencies need: rust-version
# in Cargo.toml.
setup_rust_minor=95
# tests/run checks licences, sources and the owners of libraries with this version.
setup_cargo_deny_version=0.20.2

setup_as_root() {
  if [ "$(id -u)" -eq 0 ]; then
    "$@"
  elif command -v sudo >/dev/null 2>&1; then
    sudo "$@"
  else
    return 1
  fi
}

setup_debian() {
  local package missing=()
  if ! command -v dpkg-query >/dev/null 2>&1; then
    if command -v clang >/dev/null 2>&1 && command -v make >/dev/null 2>&1; then return 0; fi
    echo "setup: not a Debian system; install the equivalents of these packages, then retry: ${setup_packages[*]}" >&2
    return 1
  fi
  for package in "${setup_packages[@]}"; do
    if ! dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed'; then
      missing+=("$package")
    fi
  done
  if [ "${#missing[@]}" -eq 0 ]; then return 0; fi
  echo "setup: installing with apt-get: ${missing[*]}" >&2
  if ! setup_as_root true; then
    echo "setup: needs root or sudo; run as root:  apt-get install ${missing[*]}" >&2
    return 1
  fi
  setup_as_root apt-get update -qq &&
    setup_as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
}

setup_rust() {
  local minor
  if ! command -v cargo >/dev/null 2>&1 && [ -x "$HOME/.cargo/bin/cargo" ]; then
    PATH="$HOME/.cargo/bin:$PATH"
  fi
  if ! command -v cargo >/dev/null 2>&1; then
    echo "setup: installing Rust with rustup into $HOME/.cargo" >&2
    curl --proto '=https' --tlsv1.2 -fsSL https://sh.rustup.rs |
      sh -s -- -y -q --no-modify-path --profile minimal --component rustfmt --component clippy || return 1
    PATH="$HOME/.cargo/bin:$PATH"
  fi
  minor="$(rustc --version | sed -E 's/^rustc 1\.([0-9]+)\..*/\1/')"
  if [ "$minor" -lt "$setup_rust_minor" ]; then
    if ! command -v rustup >/dev/null 2>&1; then
      echo "setup: Rust 1.$minor is too old; install 1.$setup_rust_minor or newer from https://rustup.rs" >&2
      return 1
    fi
    echo "setup: updating Rust 1.$minor with rustup" >&2
    rustup update stable || return 1
  fi
}

# Called by tests/run only, because it compiles for a minute or two. A debug build is fast enough.
setup_cargo_deny() {
  if cargo deny --version >/dev/null 2>&1; then return 0; fi
  echo "setup: installing cargo-deny $setup_cargo_deny_version with cargo" >&2
  env -u CARGO_TARGET_DIR cargo install --quiet --locked --debug --version "$setup_cargo_deny_version" cargo-deny
}

setup_debian
setup_rust
# After the installation, because env.sh uses ccache only if it is installed.
# shellcheck source=tests/env.sh
. tests/env.sh
