//! The states of an endpoint and the one table of their transitions.

use serde::{Deserialize, Serialize};

/// What an endpoint may be used for. See [`crate::pool`] for what each means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Rests after bad answers.
    Ejected,
    /// Told to stop; serves only while there is nothing better.
    LastResort,
    /// Told to stop; takes nothing new.
    Leaving,
    /// Nobody was home; is being probed.
    Probation,
    /// Takes requests.
    Ready,
}

/// What may move an endpoint to another state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A connection succeeded, or its rest is over.
    Admit,
    /// A connection failed, and that is enough to stop sending users there.
    Distrust,
    /// Bad answers, and that is enough to let it rest.
    Eject,
    /// It was told to stop.
    Leave,
    /// Its time as last resort is over.
    Lapse,
    /// It is to stay after all.
    Stay,
}

impl State {
    /// All states.
    pub const ALL: [State; 5] = [
        State::Ejected,
        State::LastResort,
        State::Leaving,
        State::Probation,
        State::Ready,
    ];

    /// The state as a word for logs, metrics and `explain`.
    pub fn name(self) -> &'static str {
        match self {
            State::Ejected => "ejected",
            State::LastResort => "last_resort",
            State::Leaving => "leaving",
            State::Probation => "probation",
            State::Ready => "ready",
        }
    }
}

impl Event {
    /// All events.
    pub const ALL: [Event; 6] = [
        Event::Admit,
        Event::Distrust,
        Event::Eject,
        Event::Leave,
        Event::Lapse,
        Event::Stay,
    ];
}

/// The state after `event`.
pub fn next(state: State, event: Event) -> State {
    match (event, state) {
        (Event::Admit, State::Ejected | State::Probation) => State::Ready,
        // The app stopped earlier than promised: refused means gone.
        (Event::Distrust, State::LastResort) => State::Leaving,
        (Event::Distrust, State::Ejected | State::Ready) => State::Probation,
        (Event::Eject, State::Ready) => State::Ejected,
        (Event::Leave, State::Ready) => State::LastResort,
        // What did not serve well before is no last resort.
        (Event::Leave, State::Ejected | State::Probation) => State::Leaving,
        (Event::Lapse, State::LastResort) => State::Leaving,
        (Event::Stay, State::LastResort | State::Leaving) => State::Ready,
        (Event::Admit | Event::Distrust | Event::Eject | Event::Leave | Event::Lapse | Event::Stay, state) => state,
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;
    use alloc::string::String;

    use super::*;

    #[test]
    fn the_table_of_transitions() {
        let mut table = String::new();
        for state in State::ALL {
            table += &format!("{}:", state.name());
            for event in Event::ALL {
                let to = next(state, event);
                if to != state {
                    table += &format!(" {event:?} -> {},", to.name());
                }
            }
            table += "\n";
        }
        insta::assert_snapshot!(table, @r"
        ejected: Admit -> ready, Distrust -> probation, Leave -> leaving,
        last_resort: Distrust -> leaving, Lapse -> leaving, Stay -> ready,
        leaving: Stay -> ready,
        probation: Admit -> ready, Leave -> leaving,
        ready: Distrust -> probation, Eject -> ejected, Leave -> last_resort,
        ");
    }
}
