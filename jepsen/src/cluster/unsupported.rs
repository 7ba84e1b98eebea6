//! Why this machine, or this kind of network, cannot do something.

/// A missing ability. The message says how to get it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsupported {
    /// The operation needs root.
    #[error("not root: {0} needs it")]
    NotRoot(&'static str),
    /// A program is not on the search path.
    #[error("'{program}' is missing (apt-get install {package})")]
    ProgramMissing {
        /// The program.
        program: String,
        /// The Debian package that contains it.
        package: String,
    },
    /// The library that changes clocks is not installed.
    #[error("libfaketime is missing (apt-get install faketime)")]
    FaketimeMissing,
    /// The kernel offers no loop devices.
    #[error("no loop devices: /dev/loop-control is missing")]
    LoopDevicesMissing,
    /// Loopback proxies carry byte streams, which cannot lose packets.
    #[error("loopback proxies cannot lose packets: this needs network namespaces, and therefore root")]
    LossOnLoopback,
    /// Loopback proxies have no bandwidth limit.
    #[error("loopback proxies cannot limit bandwidth: this needs network namespaces, and therefore root")]
    BandwidthOnLoopback,
}
