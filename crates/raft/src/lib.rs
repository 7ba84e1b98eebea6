//! Raft groups of a node, on openraft: proposals, reads, peer messages.
