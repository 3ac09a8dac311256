//! The order of stages.

/// Orders nodes so that each comes after those it depends on; among those that are free, the one
/// declared first comes first.
///
/// # Errors
/// A shortest circle among the nodes of lowest index, each followed by one that it depends on; the
/// first is not repeated at the end.
pub(super) fn order(depends_on: &[Vec<usize>]) -> Result<Vec<usize>, Vec<usize>> {
    let mut ordered = Vec::with_capacity(depends_on.len());
    let mut placed = vec![false; depends_on.len()];
    let free = |placed: &[bool]| {
        (0..placed.len()).find(|&node| !placed[node] && depends_on[node].iter().all(|&d| placed[d]))
    };
    while let Some(node) = free(&placed) {
        placed[node] = true;
        ordered.push(node);
    }
    if ordered.len() == depends_on.len() {
        return Ok(ordered);
    }
    let blocked = (0..placed.len()).filter(|&node| !placed[node]);
    let circles = blocked.filter_map(|node| circle_through(node, depends_on));
    Err(circles.min_by_key(Vec::len).unwrap_or_default())
}

/// A shortest way from a node back to itself.
fn circle_through(start: usize, depends_on: &[Vec<usize>]) -> Option<Vec<usize>> {
    let mut reached_from = vec![None; depends_on.len()];
    let mut queue = std::collections::VecDeque::from([start]);
    while let Some(node) = queue.pop_front() {
        for &next in &depends_on[node] {
            if next == start {
                let mut circle = vec![node];
                while let Some(before) = reached_from[*circle.last()?] {
                    circle.push(before);
                }
                circle.reverse();
                return Some(circle);
            }
            if reached_from[next].is_none() {
                reached_from[next] = Some(node);
                queue.push_back(next);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_keep_their_order_where_nothing_asks_for_another() {
        assert_eq!(order(&[vec![], vec![], vec![]]), Ok(vec![0, 1, 2]));
        assert_eq!(order(&[vec![2], vec![0], vec![]]), Ok(vec![2, 0, 1]));
    }

    #[test]
    fn a_circle_is_named_by_its_members_alone() {
        // 0 waits for the circle 1 → 2 → 3 → 1, and is no part of it
        assert_eq!(
            order(&[vec![1], vec![2], vec![3], vec![1]]),
            Err(vec![1, 2, 3])
        );
        assert_eq!(order(&[vec![], vec![1]]), Err(vec![1]));
    }
}
