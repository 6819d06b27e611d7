//! Rare paths by name. A sweep that never takes one of them has stopped testing it, and nobody would notice: so a big
//! sweep fails for it.

use std::collections::BTreeMap;

/// A rare path and how its trace shows it.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    /// Its name.
    pub name: &'static str,
    /// A text that some line of the trace has.
    pub shown_by: &'static str,
}

macro_rules! marks {
    ($($name:literal $shown_by:literal;)*) => {
        /// All of them.
        pub const ALL: &[Mark] = &[$(Mark { name: $name, shown_by: $shown_by }),*];
    };
}

marks! {
    "a clock jumps" " jumps by ";
    "a call hangs" " hangs";
    "a call is answered with an error" "a fault of the simulation";
    "a connection is dropped instead of an answer" "drops a connection instead of an answer";
    "connections are reset" " are reset, ";
    "a controller is silent" "the controller is silent for";
    "a cut-off manager answers with what was true before" "is answered with what was true before";
    "a controller does not hear its proxies" "what tidegate_proxy say to";
    "a disk is full" "the table cannot be stored";
    "a lost race is looked at again" "update out of sequence";
    "a link is slow" ", it takes up to ";
    "a manager without quorum lists what it knows" "lists what this node knows by itself";
    "a manager stops" "is refused by a manager that stops";
    "a message of a newer controller" "of a newer controller is passed over";
    "a process is frozen" "is frozen";
    "a proxy has no controller" "no controller is heard";
    "a proxy does not hear its controllers" "what tidegate_controller say to";
    "a request waits" " wait in proxy ";
    "a restarted manager replays its history" "of its history are replayed";
    "a stored table is torn" "the stored table is passed over";
    "a stream is held" "holds a stream to";
    "a stream ends with its task" "loses its stream to";
    "a task ails" ": ails: ";
    "an address is given to another service" "an address of ";
    "an answer is cut short" "is cut short";
    "an authority's life is over" "whose life is over secret=\"tidegate-authority-";
    "an election" "loses its leader";
    "Docker answers again" "Docker answers again";
    "no quorum" "has no quorum";
    "the event stream breaks" "the event stream broke";
    "the SwarmKit watch breaks" "the SwarmKit watch broke";
    "the SwarmKit watch cannot be resumed" "the SwarmKit watch cannot be resumed";
    "the SwarmKit watch falls silent" "the SwarmKit watch falls silent";
    "the SwarmKit watch is resumed" "the SwarmKit watch is resumed";
    "the product is blind" "the product may be blind";
    "the product sees again" "the product sees again";
    "the proxies are made anew" "the proxies are made anew";
}

/// Counts the runs that reached each mark.
#[derive(Clone, Debug, Default)]
pub struct Reached(BTreeMap<&'static str, u64>);

impl Reached {
    /// Looks through the trace of one run.
    pub fn look(&mut self, lines: &[String]) {
        for mark in ALL {
            if lines.iter().any(|line| line.contains(mark.shown_by)) {
                *self.0.entry(mark.name).or_default() += 1;
            }
        }
    }

    /// Adds what another thread saw.
    pub fn merge(&mut self, other: Reached) {
        for (name, runs) in other.0 {
            *self.0.entry(name).or_default() += runs;
        }
    }

    /// Marks and how many runs reached them.
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        ALL.iter()
            .map(|mark| (mark.name, self.0.get(mark.name).copied().unwrap_or_default()))
    }

    /// Marks that no run reached.
    pub fn missed(&self) -> Vec<&'static str> {
        self.counts()
            .filter(|(_, runs)| *runs == 0)
            .map(|(name, _)| name)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_reached_by_a_line_and_missed_without_one() {
        let mut reached = Reached::default();
        assert_eq!(reached.missed().len(), ALL.len());
        reached.look(&[
            "1.000s shop.1: is frozen".to_owned(),
            "2.000s shop.1: is frozen".to_owned(),
        ]);
        let mut all = Reached::default();
        all.merge(reached.clone());
        all.merge(reached);
        assert_eq!(
            all.counts().find(|(name, _)| *name == "a process is frozen"),
            Some(("a process is frozen", 2))
        );
        assert!(!all.missed().contains(&"a process is frozen"));
    }
}
