//! Parts of lists.

use serde::{Deserialize, Serialize};

/// Where a page of a list ended: the next one goes on from there, whatever was added to the list
/// meanwhile. Means something to whoever made it alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cursor(pub String);

/// Which part of a list is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageRequest {
    /// At most so many items; a server may give fewer.
    pub limit: u32,
    /// Those after that page; the first ones without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Cursor>,
}

impl PageRequest {
    /// The first so many items.
    pub fn first(limit: u32) -> Self {
        Self { limit, after: None }
    }
}

/// A part of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page<T> {
    /// The items, in the order of the list.
    pub items: Vec<T>,
    /// Where it goes on; nowhere if this was the rest of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Cursor>,
}

impl<T> Page<T> {
    /// A page of what was found when one item more than it takes was looked for.
    pub fn cut(mut found: Vec<T>, limit: u32, cursor: impl Fn(&T) -> String) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = found.len() > limit;
        found.truncate(limit);
        let last = found.last().filter(|_| more);
        Self {
            next: last.map(|last| Cursor(cursor(last))),
            items: found,
        }
    }

    /// Nothing, of a list that is not there.
    pub fn empty() -> Self {
        Self {
            items: Vec::new(),
            next: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_a_list_are_the_whole_list_and_the_last_one_says_that_it_is() {
        let list: Vec<u32> = (0..7).collect();
        let mut request = PageRequest::first(3);
        let mut seen = Vec::new();
        loop {
            let after = request.after.as_ref().map(|Cursor(last)| last.parse());
            let from = after.map_or(0, |last: Result<u32, _>| last.map_or(7, |last| last + 1));
            let found = list.iter().copied().filter(|item| *item >= from);
            let page = Page::cut(found.take(4).collect(), request.limit, ToString::to_string);
            assert!(page.items.len() <= 3);
            seen.extend(page.items);
            request.after = page.next;
            if request.after.is_none() {
                break;
            }
        }
        assert_eq!(seen, list);
        let whole = Page::cut(vec![1, 2, 3], 3, ToString::to_string);
        assert_eq!(whole.next, None, "nothing comes after");
    }
}
