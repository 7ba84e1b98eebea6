# Sourced by the scripts, from the root of the repository: makes a fresh Debian machine able to build, and says what it
# installs. Where everything is there already it does nothing and says nothing.
# shellcheck shell=bash

# RocksDB is C++ and its bindings are generated with libclang; ccache compiles it once instead of once per build directory.
setup_packages=(libclang-dev clang ccache g++ make curl ca-certificates)
# The partition-testing harness cuts links, delays packets, cuts power and changes clocks with these (jepsen/README.md).
setup_packages+=(nftables iptables iproute2 faketime e2fsprogs util-linux mount xfsprogs)
# What edition, language features and dependencies need; as in Cargo.toml, rust-version.
setup_rust_minor=95

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
    echo "setup: this is no Debian; install what these packages hold, then try again: ${setup_packages[*]}" >&2
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
    echo "setup: neither root nor sudo; ask somebody who is root to run:  apt-get install ${missing[*]}" >&2
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
      echo "setup: Rust 1.$setup_rust_minor or newer is needed, this is 1.$minor; install it from https://rustup.rs" >&2
      return 1
    fi
    echo "setup: updating Rust 1.$minor with rustup" >&2
    rustup update stable || return 1
  fi
}

setup_debian
setup_rust
# After the installation: env.sh looks whether ccache is there.
# shellcheck source=tests/env.sh
. tests/env.sh
