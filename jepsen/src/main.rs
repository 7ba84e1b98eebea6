//! `quorate-jepsen`: see the library's documentation and `jepsen/README.md`.

fn main() {}
