//! The topology group: the state machine that is the cluster itself, and what follows from it.
