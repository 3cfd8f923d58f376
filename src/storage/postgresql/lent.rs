//! A connection that is lent for some statements.

use std::ops::{Deref, DerefMut};

use deadpool_postgres::{ClientWrapper, Object};

/// A connection that is lent. It is kept for others by [`LentConnection::give_back`] alone: one that is
/// dropped, by an error or with its future, may still be busy with a statement, and is closed.
#[derive(Debug)]
pub struct LentConnection(Option<Object>);

impl LentConnection {
    pub(super) fn new(connection: Object) -> Self {
        Self(Some(connection))
    }

    /// Keeps the connection for others. All of its statements must have ended.
    pub fn give_back(mut self) {
        drop(self.0.take());
    }
}

impl Drop for LentConnection {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            drop(Object::take(connection));
        }
    }
}

impl Deref for LentConnection {
    type Target = ClientWrapper;

    fn deref(&self) -> &ClientWrapper {
        // Only `give_back` and `drop` take it out, and both end this value.
        self.0.as_ref().expect("it is there until the end")
    }
}

impl DerefMut for LentConnection {
    fn deref_mut(&mut self) -> &mut ClientWrapper {
        // As above.
        self.0.as_mut().expect("it is there until the end")
    }
}
