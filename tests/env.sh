# Sourced by the scripts: sets the build directory, and ccache so that RocksDB is compiled once. A
# CARGO_TARGET_DIR that is already set takes precedence.
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/quorate-target}"
if command -v ccache >/dev/null 2>&1; then
  export CC="ccache gcc" CXX="ccache g++"
fi
