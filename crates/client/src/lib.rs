//! The client library of Quorate.
