# Sourced by the scripts: where the build goes and how RocksDB is compiled once. Set CARGO_TARGET_DIR yourself to override.
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/quorate-target}"
if command -v ccache >/dev/null 2>&1; then
  export CC="ccache gcc" CXX="ccache g++"
fi
