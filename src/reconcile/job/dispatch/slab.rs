//! `slab::Slab` with keys of four bytes: an index of ten thousand Jobs holds each key several times.

use std::ops::{Index, IndexMut};

/// Values by a small number that is used again after a removal.
#[derive(Debug)]
pub(super) struct Slab<T>(slab::Slab<T>);

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self(slab::Slab::new())
    }
}

/// 2³² values do not fit into memory.
fn short(key: usize) -> u32 {
    u32::try_from(key).unwrap_or(u32::MAX)
}

impl<T> Slab<T> {
    pub(super) fn insert(&mut self, value: T) -> u32 {
        short(self.0.insert(value))
    }

    pub(super) fn remove(&mut self, id: u32) -> Option<T> {
        self.0.try_remove(id as usize)
    }

    pub(super) fn get(&self, id: u32) -> Option<&T> {
        self.0.get(id as usize)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().map(|(key, _)| short(key))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|(_, value)| value)
    }
}

/// The holder of a key keeps its value alive.
impl<T> Index<u32> for Slab<T> {
    type Output = T;

    fn index(&self, id: u32) -> &T {
        &self.0[id as usize]
    }
}

impl<T> IndexMut<u32> for Slab<T> {
    fn index_mut(&mut self, id: u32) -> &mut T {
        &mut self.0[id as usize]
    }
}
