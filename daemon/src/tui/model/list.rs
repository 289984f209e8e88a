//! A list with a chosen row that stays on its item while the list changes.

use super::said::Keyed;

/// Items and which of them is chosen.
#[derive(Debug, Clone)]
pub struct List<T> {
    items: Vec<T>,
    at: usize,
}

impl<T> Default for List<T> {
    fn default() -> Self {
        Self { items: Vec::new(), at: 0 }
    }
}

impl<T: Keyed> List<T> {
    /// The items in their order.
    pub fn items(&self) -> &[T] {
        &self.items
    }

    /// The chosen row; nothing in an empty list.
    pub fn at(&self) -> Option<usize> {
        (!self.items.is_empty()).then_some(self.at)
    }

    /// The chosen item.
    pub fn chosen(&self) -> Option<&T> {
        self.items.get(self.at)
    }

    /// Other items: the choice stays on its item if that is still there, else on its row.
    pub fn replace(&mut self, items: Vec<T>) {
        let key = self.chosen().map(Keyed::key);
        let found = key.and_then(|key| items.iter().position(|item| item.key() == key));
        self.at = found.unwrap_or(self.at).min(items.len().saturating_sub(1));
        self.items = items;
    }

    /// A new first item; of more than `max` the last ones go. The choice stays on its item, but on the first row it stays there, so that one
    /// who looks at the newest goes on doing so.
    pub fn push_front(&mut self, item: T, max: usize) {
        self.items.insert(0, item);
        self.items.truncate(max);
        if self.at > 0 {
            self.at = (self.at + 1).min(self.items.len().saturating_sub(1));
        }
    }

    /// Moves the choice by so many rows, as far as there are any.
    pub fn step(&mut self, by: isize) {
        self.at = self.at.saturating_add_signed(by).min(self.items.len().saturating_sub(1));
    }
}
