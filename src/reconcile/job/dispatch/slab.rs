//! A list whose places are used again; indices are small numbers.

use std::ops::{Index, IndexMut};

/// The list.
#[derive(Debug)]
pub(super) struct Slab<T> {
    places: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self {
            places: Vec::new(),
            free: Vec::new(),
        }
    }
}

impl<T> Slab<T> {
    /// Puts something in. More than 2³² things do not fit into memory.
    pub(super) fn insert(&mut self, thing: T) -> u32 {
        if let Some(id) = self.free.pop() {
            self.places[id as usize] = Some(thing);
            return id;
        }
        self.places.push(Some(thing));
        u32::try_from(self.places.len() - 1).unwrap_or(u32::MAX)
    }

    pub(super) fn remove(&mut self, id: u32) -> Option<T> {
        let thing = self.places.get_mut(id as usize)?.take();
        if thing.is_some() {
            self.free.push(id);
        }
        thing
    }

    pub(super) fn get(&self, id: u32) -> Option<&T> {
        self.places.get(id as usize)?.as_ref()
    }

    pub(super) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = u32> + '_ {
        (0u32..)
            .zip(&self.places)
            .filter_map(|(id, place)| place.as_ref().map(|_| id))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.places.iter().flatten()
    }
}

/// An index that is in use: the holder of one keeps its entry alive.
impl<T> Index<u32> for Slab<T> {
    type Output = T;

    fn index(&self, id: u32) -> &T {
        match &self.places[id as usize] {
            Some(thing) => thing,
            None => unreachable!("the place {id} is empty"),
        }
    }
}

impl<T> IndexMut<u32> for Slab<T> {
    fn index_mut(&mut self, id: u32) -> &mut T {
        match &mut self.places[id as usize] {
            Some(thing) => thing,
            None => unreachable!("the place {id} is empty"),
        }
    }
}
