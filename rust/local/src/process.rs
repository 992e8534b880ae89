//! State that belongs to one process.

use std::sync::OnceLock;

/// One value per process, made on its first use there.
///
/// The values hang in a list with one link per process that used it. After a fork the child walks past its parent's link
/// without touching the value (its threads do not exist here and its locks may be held) and adds its own.
pub struct PerProcess<T> {
    process: u32,
    value: T,
    next: OnceLock<Box<Self>>,
}

impl<T> PerProcess<T> {
    /// The value of this process.
    pub fn new(value: T) -> Self {
        Self { process: std::process::id(), value, next: OnceLock::new() }
    }

    /// The value of the process that asks.
    pub fn get(&self, make: impl Fn() -> T) -> &T {
        let process = std::process::id();
        let mut link = self;
        while link.process != process {
            link = link.next.get_or_init(|| Box::new(Self::new(make())));
        }
        &link.value
    }
}
