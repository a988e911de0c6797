//! Decisions of an upgrade that need no cluster: statistics, windows.
