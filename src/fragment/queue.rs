//! The order in which datagrams expire: a list, oldest first, in memory that is reserved once.

use super::DatagramKey;
use crate::session::Micros;

/// No node.
const NIL: u32 = u32::MAX;

/// A datagram's place in the queue. No two datagrams had the same one within 2^32 others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticket {
    node: u32,
    serial: u32,
}

#[derive(Debug, Clone, Copy)]
struct Node {
    key: DatagramKey,
    deadline: Micros,
    serial: u32,
    previous: u32,
    /// In a free node, the next free one.
    next: u32,
}

#[derive(Debug)]
pub(super) struct Queue {
    nodes: Vec<Node>,
    first: u32,
    last: u32,
    free: u32,
    serial: u32,
    len: usize,
}

impl Queue {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            nodes: Vec::with_capacity(capacity),
            first: NIL,
            last: NIL,
            free: NIL,
            serial: 0,
            len: 0,
        }
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    fn node(&mut self, number: u32) -> Option<&mut Node> {
        self.nodes.get_mut(number as usize)
    }

    /// Puts a datagram at the end.
    pub(super) fn push(&mut self, key: DatagramKey, deadline: Micros) -> Ticket {
        self.serial = self.serial.wrapping_add(1);
        let node = Node {
            key,
            deadline,
            serial: self.serial,
            previous: self.last,
            next: NIL,
        };
        let number = self.free;
        let number = match self.node(number) {
            Some(free) => {
                let next = core::mem::replace(free, node).next;
                self.free = next;
                number
            }
            None => {
                self.nodes.push(node);
                (self.nodes.len() - 1) as u32
            }
        };
        match self.node(self.last) {
            Some(last) => last.next = number,
            None => self.first = number,
        }
        self.last = number;
        self.len += 1;
        Ticket {
            node: number,
            serial: node.serial,
        }
    }

    /// The oldest datagram, if its time has come.
    pub(super) fn due(&self, now: Micros) -> Option<(DatagramKey, Ticket)> {
        let node = self.nodes.get(self.first as usize)?;
        let ticket = Ticket {
            node: self.first,
            serial: node.serial,
        };
        (node.deadline <= now).then_some((node.key, ticket))
    }

    /// Takes a datagram off the list.
    pub(super) fn remove(&mut self, ticket: Ticket) {
        let free = self.free;
        let Some(node) = self.node(ticket.node) else {
            return;
        };
        debug_assert_eq!(node.serial, ticket.serial, "only its owner removes a datagram");
        let (previous, next) = (node.previous, node.next);
        node.next = free;
        self.free = ticket.node;
        match self.node(previous) {
            Some(before) => before.next = next,
            None => self.first = next,
        }
        match self.node(next) {
            Some(after) => after.previous = previous,
            None => self.last = previous,
        }
        self.len -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fragment::tests::key;

    #[test]
    fn datagrams_come_due_in_order_and_leave_from_anywhere() {
        let mut queue = Queue::new(4);
        let tickets: Vec<_> = (0..4)
            .map(|n| queue.push(key(n), Micros(10 + u64::from(n))))
            .collect();
        assert_eq!(queue.due(Micros(9)), None);
        assert_eq!(queue.due(Micros(99)), Some((key(0), tickets[0])));
        queue.remove(tickets[1]);
        queue.remove(tickets[0]);
        assert_eq!(queue.due(Micros(99)), Some((key(2), tickets[2])));
        let again = queue.push(key(1), Micros(20));
        assert_ne!(
            again, tickets[0],
            "a place that is taken again has another ticket"
        );
        queue.remove(tickets[3]);
        queue.remove(tickets[2]);
        assert_eq!(queue.due(Micros(99)), Some((key(1), again)));
        queue.remove(again);
        assert_eq!((queue.due(Micros(99)), queue.len()), (None, 0));
        for n in 0..4 {
            queue.push(key(n), Micros(30));
        }
        assert_eq!((queue.nodes.len(), queue.len()), (4, 4), "places are used again");
    }
}
