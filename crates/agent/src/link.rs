//! How an agent hears what it is to do, and tells what came of it: nothing else passes between it
//! and a control plane, wherever that is.
//!
//! What passes is [`Order`] and [`Event`], as `api` has them. A link may deliver an order twice, late
//! or never, and lose an event: the control plane orders again what shows no effect, and an end that
//! nobody has heard of is told again then. [`local`] loses nothing.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use async_trait::async_trait;
use barecount_api::assignment::{Event, Order};
use tokio::sync::{Mutex, mpsc, watch};

use crate::config::Agent;

/// An agent's end of what joins it to a control plane.
#[async_trait]
pub trait Link: Send + Sync {
    /// The next order; none once there will be none any more. That it is asked for says that the
    /// order before has been taken. Cancel-safe.
    async fn next(&self) -> Option<Order>;

    /// Tells what happened. Resolves when it is on its way, or never will be.
    async fn tell(&self, event: Event);
}

/// Has an agent carry out what comes over a link, and tell over it what `told` has; resolves when
/// the link has ended. What is under way then goes on, and is told to nobody: whoever serves the
/// agent next recovers it.
pub async fn serve(agent: Agent, mut told: mpsc::UnboundedReceiver<Event>, link: Arc<dyn Link>) {
    loop {
        tokio::select! {
            order = link.next() => match order {
                Some(order) => agent.order(order),
                None => return,
            },
            Some(event) = told.recv() => link.tell(event).await,
        }
    }
}

/// Joins an agent to a control plane in the same process. Nothing is lost on the way, and orders are
/// taken in the order in which they were given.
pub fn local() -> (LocalControl, LocalLink) {
    let (orders, given) = mpsc::unbounded_channel();
    let (tell, events) = mpsc::unbounded_channel();
    let counts = Arc::new(Counts {
        given: AtomicU64::new(0),
        handed: AtomicU64::new(0),
        taken: watch::Sender::new(0),
    });
    let control = LocalControl {
        orders: LocalOrders {
            orders,
            counts: Arc::clone(&counts),
        },
        events,
    };
    let link = LocalLink {
        orders: Mutex::new(given),
        tell,
        counts,
    };
    (control, link)
}

/// A control plane's end of a [`local`] link.
#[derive(Debug)]
pub struct LocalControl {
    /// Where orders go.
    pub orders: LocalOrders,
    /// What the agent tells.
    pub events: mpsc::UnboundedReceiver<Event>,
}

/// Where a control plane's orders go over a [`local`] link, which ends with the last of these.
#[derive(Debug, Clone)]
pub struct LocalOrders {
    orders: mpsc::UnboundedSender<Order>,
    counts: Arc<Counts>,
}

impl LocalOrders {
    /// Gives an order. Where nobody serves the agent any more it reaches nobody.
    pub fn order(&self, order: Order) {
        self.counts.given.fetch_add(1, Ordering::SeqCst);
        let _ = self.orders.send(order);
    }

    /// Resolves when the agent has taken every order given so far. Cancel-safe.
    pub async fn taken(&self) {
        let given = self.counts.given.load(Ordering::SeqCst);
        // The sender lives in `self`.
        let _ = self
            .counts
            .taken
            .subscribe()
            .wait_for(|taken| *taken >= given)
            .await;
    }
}

/// An agent's end of a [`local`] link.
#[derive(Debug)]
pub struct LocalLink {
    orders: Mutex<mpsc::UnboundedReceiver<Order>>,
    tell: mpsc::UnboundedSender<Event>,
    counts: Arc<Counts>,
}

#[derive(Debug)]
struct Counts {
    given: AtomicU64,
    handed: AtomicU64,
    taken: watch::Sender<u64>,
}

#[async_trait]
impl Link for LocalLink {
    async fn next(&self) -> Option<Order> {
        let handed = self.counts.handed.load(Ordering::SeqCst);
        self.counts.taken.send_replace(handed);
        let order = self.orders.lock().await.recv().await;
        self.counts.handed.fetch_add(1, Ordering::SeqCst);
        order
    }

    async fn tell(&self, event: Event) {
        // Nobody listens only while the program ends.
        let _ = self.tell.send(event);
    }
}

impl Drop for LocalLink {
    fn drop(&mut self) {
        // Nobody takes any order from here on, and nobody has to wait for that.
        self.counts.taken.send_replace(u64::MAX);
    }
}

#[cfg(test)]
mod tests {
    use barecount_model::id::RunId;

    use super::*;

    fn release(number: u8) -> Order {
        Order::Release(RunId::from_bytes([number; 16]))
    }

    #[tokio::test]
    async fn orders_are_taken_as_they_were_given_and_who_gave_them_can_wait_for_that() {
        let (control, link) = local();
        control.orders.order(release(1));
        control.orders.order(release(2));
        let mut taken = Box::pin(control.orders.taken());
        for number in [1, 2] {
            let Some(Order::Release(run)) = link.next().await else {
                panic!("an order was given");
            };
            assert_eq!(run, RunId::from_bytes([number; 16]));
            // One that was handed out is not taken before the next is asked for.
            tokio::select! {
                biased;
                () = &mut taken => panic!("an order is still on its way"),
                () = std::future::ready(()) => {}
            }
        }
        tokio::select! {
            _ = link.next() => panic!("no more orders were given"),
            () = taken => {}
        }
    }

    #[tokio::test]
    async fn a_link_ends_when_its_control_plane_has_gone_and_leaves_nobody_waiting() {
        let (control, link) = local();
        let orders = control.orders.clone();
        orders.order(release(1));
        drop(control);
        drop(link);
        orders.taken().await;
        let (control, link) = local();
        drop(control);
        assert!(link.next().await.is_none());
    }
}
