//! Runs a network over a volume.
