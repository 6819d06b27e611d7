//! What keeps a controller from seeing the Swarm as it is, and when the operator hears of it.

use alloc::string::{String, ToString};

use super::Controller;

impl Controller {
    /// Why the Swarm is not seen as it is now, if it is not: the first reason stands for all.
    pub fn trouble(&self) -> Option<String> {
        let (lane, why) = self.world.troubles().iter().next()?;
        let served = match self.world.is_synced() {
            true => "what was seen last is served on",
            false => "nothing is published before it was seen whole",
        };
        Some(alloc::format!(
            "a look at the Swarm ({}) failed: {why}; {served}",
            lane.name()
        ))
    }

    /// Says once that trouble began and once that it is over, whatever it does in between.
    pub(super) fn tell_trouble(&mut self) {
        match (self.trouble(), &self.told_trouble) {
            (Some(trouble), None) => {
                self.told_trouble = Some(trouble.clone());
                self.notice(trouble);
            }
            (None, Some(_)) => {
                self.told_trouble = None;
                self.notice("Docker answers again".to_string());
            }
            (Some(_), Some(_)) | (None, None) => {}
        }
        self.tell_feed();
    }

    /// Says once that there is no feed though one is wanted, and once that there is.
    fn tell_feed(&mut self) {
        let absence = self.world.feed_absence().map(String::from);
        if absence.is_some() != self.told_feed.is_some() {
            self.notice(match &absence {
                Some(why) => alloc::format!("swarm_watch: {why}; tasks are polled instead"),
                None => "swarm_watch: tasks are followed".to_string(),
            });
            self.told_feed = absence;
        }
    }
}
