//! The server: services, peer transport, admission, configuration, shutdown.
