//! Gateway API statuses: every replica knows what they should say, the holder of the status Lease writes them.
//!
//! A write is a compare-and-swap: the object as last seen, our part of its status replaced, everybody else's kept, sent with the
//! resourceVersion it was seen with. Nothing here delays a proxy.

mod events;
mod kinds;
mod merge;
mod rests;
#[cfg(test)]
mod tests;
mod write;
mod writer;

pub use events::Events;
pub use writer::Writer;
