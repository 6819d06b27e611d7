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
    /// Off unless asked for; `false` also where the settings ask for it. Without a value, or with `true`, the socket is
    /// /var/run/docker/swarm/control.sock. Changes arrive within
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
        default_missing_value = SOCKET,
        value_parser = socket
    )]
    pub swarm_watch: Option<Socket>,
}

/// What is said of the socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Socket {
    /// Where it is.
    At(String),
    /// It is not to be used, whatever other settings say.
    Off,
    /// Nothing: a variable of a stack file that is not set.
    Unsaid,
}

fn socket(text: &str) -> Result<Socket, String> {
    match text {
        "" => Ok(Socket::Unsaid),
        "false" => Ok(Socket::Off),
        "true" => Ok(Socket::At(SOCKET.to_owned())),
        path if path.starts_with('/') => Ok(Socket::At(path.to_owned())),
        _ => Err(format!("write the path of the control socket, as {SOCKET}")),
    }
}

impl WatchArgs {
    /// `settings` with what is said here.
    pub fn with(&self, settings: &SettingsArgs) -> SettingsArgs {
        let mut settings = settings.clone();
        let said = match &self.swarm_watch {
            Some(Socket::At(path)) => Some(path.as_str()),
            Some(Socket::Off) => Some(""),
            Some(Socket::Unsaid) | None => None,
        };
        settings
            .set
            .extend(said.map(|socket| format!("controller.swarm_watch={socket}")));
        settings
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        watch: WatchArgs,
        #[command(flatten)]
        settings: SettingsArgs,
    }

    fn settings(flags: &[&str]) -> Vec<String> {
        let flags = Flags::try_parse_from([&["tidegate"], flags].concat()).expect("good flags");
        flags.watch.with(&flags.settings).set
    }

    #[test]
    fn the_flag_is_the_setting_and_off_unless_it_is_given() {
        assert!(settings(&[]).is_empty());
        // As a stack file has it where its variable is not set.
        assert!(settings(&["--swarm-watch", ""]).is_empty());
        let default = "controller.swarm_watch=/var/run/docker/swarm/control.sock";
        assert_eq!(settings(&["--swarm-watch"]), [default]);
        assert_eq!(settings(&["--swarm-watch", "true"]), [default]);
        let off = settings(&["--swarm-watch", "false"]);
        assert_eq!(off, ["controller.swarm_watch="], "whatever the file says");
        let args = |set: &[&str]| SettingsArgs {
            config: None,
            set: set.iter().map(ToString::to_string).collect(),
        };
        let both = args(&["controller.swarm_watch=/run/c.sock", &off[0]]);
        let read = crate::config::settings(&both, std::iter::empty()).expect("good settings");
        assert_eq!(read.controller.swarm_watch, "");
        let both = settings(&["--set", "controller.listen=0.0.0.0:1", "--swarm-watch", "/run/c.sock"]);
        assert_eq!(
            both,
            ["controller.listen=0.0.0.0:1", "controller.swarm_watch=/run/c.sock"]
        );
    }
}
