//! Slots at the control socket. Idle clients cannot block a new client.

use std::io;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// State of a client. A new client evicts one in the lowest state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Activity {
    /// No request has arrived yet.
    Silent,
    /// The last request is answered.
    Idle,
    /// A request is being answered.
    Asking,
}

/// Connected client.
#[derive(Debug)]
struct Client {
    number: u64,
    /// A second handle to its connection.
    stream: UnixStream,
    activity: Activity,
    since: Instant,
}

#[derive(Debug, Default)]
struct ClientPlaces {
    clients: Vec<Client>,
    next: u64,
    /// Threads that serve clients, those of evicted ones included.
    threads: usize,
}

/// Clients in a bounded number of slots.
#[derive(Debug)]
pub(super) struct Clients {
    max: usize,
    /// Time for which a client that is being answered cannot be evicted.
    patience: Duration,
    places: Mutex<ClientPlaces>,
}

/// A slot of a client, which is returned when dropped.
#[derive(Debug)]
pub(super) struct ClientPlace {
    clients: Arc<Clients>,
    number: u64,
}

impl Clients {
    /// Returns `max` free places.
    pub(super) fn new(max: usize, patience: Duration) -> Self {
        Self {
            max,
            patience,
            places: Mutex::default(),
        }
    }

    /// Gives a slot to a client. If all slots are taken, evicts the client without a request for
    /// the longest time, or else the idlest one, or else the one whose answer has taken longest,
    /// above the patience. Returns `None` if no client can be evicted.
    ///
    /// # Errors
    /// Returns an error if no descriptor is left.
    pub(super) fn admit(
        self: &Arc<Self>,
        stream: &UnixStream,
        now: Instant,
    ) -> io::Result<Option<ClientPlace>> {
        let stream = stream.try_clone()?;
        let mut places = self.places.lock();
        // The thread of an evicted client ends once it notices.
        if places.threads >= 2 * self.max {
            return Ok(None);
        }
        if places.clients.len() >= self.max {
            let may_go = |client: &Client| {
                client.activity != Activity::Asking
                    || now.saturating_duration_since(client.since) > self.patience
            };
            let evictable = places
                .clients
                .iter()
                .enumerate()
                .filter(|(_, client)| may_go(client))
                .min_by_key(|(_, client)| (client.activity, client.since))
                .map(|(place, _)| place);
            let Some(place) = evictable else {
                return Ok(None);
            };
            let evicted = places.clients.swap_remove(place);
            // If this fails, the client is already gone.
            let _ = evicted.stream.shutdown(Shutdown::Both);
        }
        let number = places.next;
        places.next += 1;
        places.threads += 1;
        places.clients.push(Client {
            number,
            stream,
            activity: Activity::Silent,
            since: now,
        });
        Ok(Some(ClientPlace {
            clients: Arc::clone(self),
            number,
        }))
    }
}

impl ClientPlace {
    /// Records a request of the client.
    pub(super) fn note_request(&self) {
        self.set_activity(Activity::Asking);
    }

    /// Records the end of the client's answer.
    pub(super) fn note_answer(&self) {
        self.set_activity(Activity::Idle);
    }

    fn set_activity(&self, activity: Activity) {
        let mut places = self.clients.places.lock();
        let own = places
            .clients
            .iter_mut()
            .find(|client| client.number == self.number);
        if let Some(client) = own {
            client.activity = activity;
            client.since = Instant::now();
        }
    }
}

impl Drop for ClientPlace {
    fn drop(&mut self) {
        let mut places = self.clients.places.lock();
        places.threads -= 1;
        places.clients.retain(|client| client.number != self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    /// A client and its end of the connection.
    struct Guest(UnixStream, Option<ClientPlace>);

    impl Guest {
        fn new(clients: &Arc<Clients>, now: Instant) -> Self {
            let (own, theirs) = UnixStream::pair().unwrap();
            own.set_nonblocking(true).unwrap();
            Self(own, clients.admit(&theirs, now).unwrap())
        }

        fn place(&self) -> &ClientPlace {
            self.1.as_ref().unwrap()
        }

        fn is_evicted(&self) -> bool {
            matches!((&self.0).read(&mut [0]), Ok(0))
        }
    }

    fn clients() -> Arc<Clients> {
        Arc::new(Clients::new(2, Duration::from_secs(10)))
    }

    #[test]
    fn the_client_that_has_asked_nothing_for_longest_makes_room() {
        let (clients, now) = (clients(), Instant::now());
        let mut guests: Vec<Guest> = Vec::new();
        // Each new client gets a slot, regardless of the number of idle ones.
        for second in 0..4 {
            guests.push(Guest::new(&clients, now + Duration::from_secs(second)));
            assert!(
                guests.last().is_some_and(|guest| guest.1.is_some()),
                "{second}"
            );
        }
        let evicted: Vec<_> = guests.iter().map(Guest::is_evicted).collect();
        assert_eq!(evicted, [true, true, false, false]);
    }

    #[test]
    fn a_client_that_has_asked_outlasts_one_that_has_not() {
        let (clients, now) = (clients(), Instant::now());
        let first = Guest::new(&clients, now);
        first.place().note_request();
        first.place().note_answer();
        let silent = Guest::new(&clients, now + Duration::from_secs(60));
        let third = Guest::new(&clients, now + Duration::from_secs(61));
        third.place().note_request();
        assert_eq!([first.is_evicted(), silent.is_evicted()], [false, true]);
        let _fourth = Guest::new(&clients, now + Duration::from_secs(62));
        assert_eq!([first.is_evicted(), third.is_evicted()], [true, false]);
    }

    #[test]
    fn a_client_that_is_being_answered_keeps_its_place_for_a_while() {
        let (clients, now) = (clients(), Instant::now());
        let busy: Vec<_> = (0..2).map(|_| Guest::new(&clients, now)).collect();
        for guest in &busy {
            guest.place().note_request();
        }
        assert!(Guest::new(&clients, Instant::now()).1.is_none());
        let later = Instant::now() + Duration::from_secs(11);
        assert!(Guest::new(&clients, later).1.is_some());
        assert_eq!(busy.iter().filter(|guest| guest.is_evicted()).count(), 1);
    }

    #[test]
    fn threads_of_evicted_clients_are_bounded() {
        let (clients, now) = (clients(), Instant::now());
        let mut guests: Vec<_> = (0..4).map(|_| Guest::new(&clients, now)).collect();
        assert!(
            Guest::new(&clients, now).1.is_none(),
            "four threads for two places"
        );
        guests.remove(0);
        assert!(Guest::new(&clients, now).1.is_some());
        drop(guests);
        let places = clients.places.lock();
        assert_eq!((places.clients.len(), places.threads), (0, 0));
    }
}
