//! Keys to tokens, tokens to shards, shards to proposed replicas: pure functions.
