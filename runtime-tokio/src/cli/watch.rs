//! Options of SwarmKit's watch.

use clap::Args;

use super::SettingsArgs;

/// Where a manager has its control socket.
const SOCKET: &str = "/var/run/docker/swarm/control.sock";

/// How task changes are learnt.
#[derive(Args, Clone, Debug)]
pub struct WatchArgs {
    /// Be told of task changes by the manager's SwarmKit, instead of asking Docker for them again and again.
    ///
    /// Off unless asked for. Without a value the socket is /var/run/docker/swarm/control.sock. Changes arrive within
    /// milliseconds, and Docker is asked far less while services change. Where the socket cannot be had, or tells nothing,
    /// tasks are asked for as without it, and the log says so.
    ///
    /// Mount the folder /var/run/docker/swarm of the managers into the controllers, not the socket: a restarted Docker
    /// makes a new one. Know that this is an internal API of Docker, and that whoever can open this socket can read every
    /// secret of the Swarm; Tidegate asks for tasks alone.
    ///
    /// The same as the setting controller.swarm_watch.
    #[arg(
        long,
        env = "TIDEGATE_SWARM_WATCH",
        value_name = "SOCKET",
        num_args = 0..=1,
        default_missing_value = SOCKET
    )]
    pub swarm_watch: Option<String>,
}

impl WatchArgs {
    /// `settings` with what is said here.
    pub fn with(&self, settings: &SettingsArgs) -> SettingsArgs {
        let mut settings = settings.clone();
        let said = self.swarm_watch.as_deref().filter(|socket| !socket.is_empty());
        settings
            .set
            .extend(said.map(|socket| format!("controller.swarm_watch={socket}")));
        settings
    }
}
