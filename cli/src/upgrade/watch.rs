//! Following an upgrade: on a terminal the screen is drawn anew, elsewhere a line is added for each change.

use std::{io::IsTerminal, pin::pin, process::ExitCode, time::Duration};

use anyhow::bail;
use futures::StreamExt;
use k8s_openapi::jiff::Timestamp;
use kube::{
    Api, Client, ResourceExt,
    runtime::{WatchStreamExt, watcher, watcher::watch_object},
};
use meshwright_api::{MeshControlPlane, UpgradeResult};

use super::{progress::Progress, running};
use crate::{
    args::Format,
    client,
    output::{clock, emit},
};

/// Goes home, and at the end clears what was left below.
const HOME: &str = "\x1b[H\x1b[2J";

/// Follows until the upgrade ends; where none is under way it waits for one. The watch is taken up again by itself.
pub async fn follow(client: Client, mesh: &MeshControlPlane, format: Format) -> anyhow::Result<ExitCode> {
    let (namespace, name) = (mesh.namespace().unwrap_or_default(), mesh.name_any());
    let api: Api<MeshControlPlane> = Api::namespaced(client, &namespace);
    let mut changes = pin!(watch_object(api, &name).default_backoff());
    let mut screen = Screen::new(format, format == Format::Text && std::io::stdout().is_terminal());
    let mut second = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            change = changes.next() => match change {
                Some(Ok(Some(mesh))) => {
                    let (text, code) = screen.changed(&mesh, Timestamp::now())?;
                    emit(&text)?;
                    if let Some(code) = code {
                        return Ok(code);
                    }
                }
                Some(Err(error)) => match told(&error) {
                    (true, why) => bail!("you may not watch MeshControlPlane {namespace}/{name}: {why}"),
                    (false, why) => eprintln!("the watch broke and is taken up again: {why}"),
                },
                Some(Ok(None)) | None => bail!("MeshControlPlane {namespace}/{name} is gone"),
            },
            // Times go on while nothing changes.
            _ = second.tick(), if screen.live => screen.draw(Timestamp::now())?,
        }
    }
}

/// Whether trying again is of no use, and what happened.
fn told(error: &watcher::Error) -> (bool, String) {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => {
            let forbidden = matches!(error, kube::Error::Api(status) if status.is_forbidden());
            (forbidden, client::reason(error))
        }
        watcher::Error::WatchError(status) => (false, status.message.clone()),
        other => (false, other.to_string()),
    }
}

struct Screen {
    format: Format,
    live: bool,
    shown: Option<Progress>,
    line: String,
    was_running: bool,
}

impl Screen {
    fn new(format: Format, live: bool) -> Self {
        Self { format, live, shown: None, line: String::new(), was_running: false }
    }

    /// What to print, and the exit code once the upgrade that was seen is over.
    fn changed(
        &mut self,
        mesh: &MeshControlPlane,
        now: Timestamp,
    ) -> anyhow::Result<(String, Option<ExitCode>)> {
        let progress = Progress::new(mesh);
        let over = self.was_running && running(mesh).is_none();
        self.was_running = running(mesh).is_some();
        let first = self.shown.is_none();
        let same = self.shown.as_ref() == Some(&progress);
        let line = progress.line();
        let text = match self.format {
            _ if self.live => HOME.to_owned() + &progress.text(now),
            _ if same => String::new(),
            Format::Text if first || over => progress.text(now) + "\n",
            Format::Text if line == self.line => String::new(),
            Format::Text => format!("{}  {line}\n", clock(now)),
            Format::Json => serde_json::to_string(&progress)? + "\n",
            Format::Yaml => "---\n".to_owned() + &serde_yaml_ng::to_string(&progress)?,
        };
        let code = if over { outcome(&progress) } else { None };
        (self.shown, self.line) = (Some(progress), line);
        Ok((text, code))
    }

    fn draw(&self, now: Timestamp) -> anyhow::Result<()> {
        match &self.shown {
            Some(progress) => emit(&(HOME.to_owned() + &progress.text(now))),
            None => Ok(()),
        }
    }
}

/// How it ended; one that was superseded is followed by another.
fn outcome(progress: &Progress) -> Option<ExitCode> {
    let result = match (&progress.upgrade, &progress.last) {
        (Some(upgrade), _) if upgrade.rollback.as_ref().is_some_and(|r| r.cause == "Superseded") => {
            return None;
        }
        (Some(_), _) => UpgradeResult::RolledBack,
        (None, last) => last.as_ref()?.result,
    };
    match result {
        UpgradeResult::Succeeded => Some(ExitCode::SUCCESS),
        UpgradeResult::RolledBack => Some(ExitCode::FAILURE),
        UpgradeResult::Superseded => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{NOW, fresh, mesh};

    fn see(screen: &mut Screen, mesh: &MeshControlPlane) -> (usize, Option<ExitCode>) {
        let (text, code) = screen.changed(mesh, NOW.parse().unwrap()).unwrap();
        (text.lines().count(), code)
    }

    #[test]
    fn following_ends_with_the_upgrade_that_was_seen_and_not_before() {
        let mut screen = Screen::new(Format::Json, false);
        assert_eq!(see(&mut screen, &mesh("rolled-back")), (1, None), "an old one is none to follow");
        assert_eq!(see(&mut screen, &mesh("shift")), (1, None));
        assert_eq!(see(&mut screen, &mesh("shift")), (0, None), "nothing changed");
        assert_eq!(see(&mut screen, &mesh("rolled-back")), (1, Some(ExitCode::FAILURE)));
        assert_eq!(see(&mut screen, &mesh("drain")), (1, None));
        assert_eq!(see(&mut screen, &fresh()), (1, Some(ExitCode::SUCCESS)));
    }

    #[test]
    fn one_that_is_superseded_is_followed_into_the_next() {
        let mut superseded = mesh("rolled-back");
        let upgrade = superseded.status.as_mut().unwrap().upgrade.as_mut().unwrap();
        upgrade.rollback.as_mut().unwrap().cause = "Superseded".to_owned();
        let mut screen = Screen::new(Format::Text, false);
        see(&mut screen, &mesh("blocked"));
        assert_eq!(see(&mut screen, &superseded).1, None);
        assert_eq!(see(&mut screen, &mesh("shift")), (1, None), "one line for each change");
    }
}
