//! Following an upgrade: on a terminal the screen is drawn anew, elsewhere a line is added for each change.

use std::{io::IsTerminal, pin::pin, process::ExitCode, time::Duration};

use anyhow::bail;
use futures::StreamExt;
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use kube::{
    Api, Client, ResourceExt,
    runtime::{WatchStreamExt, watcher, watcher::watch_object},
};
use meshwright_api::MeshControlPlane;

use super::{progress::Progress, recorded};
use crate::{
    args::Format,
    client,
    output::{clock, emit},
};

mod end;
#[cfg(test)]
mod tests;

use end::{at_rest, end, goes_on};

/// Goes home, and at the end clears what was left below.
const HOME: &str = "\x1b[H\x1b[2J";

/// So long nothing changes before what is at rest is taken to stay so: between two upgrades there is none for a moment.
const REST: Duration = Duration::from_secs(5);

/// Follows until the upgrade ends, until none begins, or until nobody reads any more. The watch is taken up again by itself.
pub async fn follow(client: Client, mesh: &MeshControlPlane, format: Format) -> anyhow::Result<ExitCode> {
    let (namespace, name) = (mesh.namespace().unwrap_or_default(), mesh.name_any());
    let api: Api<MeshControlPlane> = Api::namespaced(client, &namespace);
    let mut changes = pin!(watch_object(api, &name).default_backoff());
    let mut screen = Screen::new(format, format == Format::Text && std::io::stdout().is_terminal());
    let mut second = tokio::time::interval(Duration::from_secs(1));
    let mut rest: Option<(tokio::time::Instant, ExitCode)> = None;
    loop {
        let is_read = tokio::select! {
            change = changes.next() => match change {
                Some(Ok(Some(mesh))) => {
                    rest = at_rest(&mesh).map(|code| (tokio::time::Instant::now() + REST, code));
                    let (text, code) = screen.changed(&mesh, Timestamp::now())?;
                    let is_read = emit(&text)?;
                    if let Some(code) = code {
                        return Ok(code);
                    }
                    is_read
                }
                Some(Err(error)) => match told(&error) {
                    (true, why) => bail!("you may not watch MeshControlPlane {namespace}/{name}: {why}"),
                    (false, why) => {
                        // What is at rest may not be so any more.
                        rest = None;
                        screen.broken(Timestamp::now(), why)?
                    }
                },
                Some(Ok(None)) | None => bail!("MeshControlPlane {namespace}/{name} is gone"),
            },
            Some(code) = rested(rest) => return Ok(code),
            // Times go on while nothing changes.
            _ = second.tick(), if screen.live => screen.draw(Timestamp::now())?,
        };
        if !is_read {
            return Ok(ExitCode::SUCCESS);
        }
    }
}

/// When it has stayed at rest for long enough; at once nothing where it is not at rest.
async fn rested(rest: Option<(tokio::time::Instant, ExitCode)>) -> Option<ExitCode> {
    let (until, code) = rest?;
    tokio::time::sleep_until(until).await;
    Some(code)
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
    /// When the upgrade that is followed began.
    since: Option<Time>,
    /// Since when nothing is heard, and why.
    broken: Option<(Timestamp, String)>,
}

impl Screen {
    fn new(format: Format, live: bool) -> Self {
        Self { format, live, shown: None, line: String::new(), since: None, broken: None }
    }

    /// What to print, and the exit code once there is nothing more to follow.
    fn changed(
        &mut self,
        mesh: &MeshControlPlane,
        now: Timestamp,
    ) -> anyhow::Result<(String, Option<ExitCode>)> {
        let progress = Progress::new(mesh);
        self.broken = None;
        let code = end(mesh, self.since.as_ref());
        if let Some(upgrade) = recorded(mesh).filter(|_| goes_on(mesh)) {
            self.since = Some(upgrade.started.clone());
        }
        let first = self.shown.is_none();
        let same = self.shown.as_ref() == Some(&progress);
        let line = progress.line();
        let text = match self.format {
            _ if self.live => HOME.to_owned() + &progress.text(now),
            Format::Text if first || code.is_some() => progress.text(now) + "\n",
            _ if same => String::new(),
            Format::Text if line == self.line => String::new(),
            Format::Text => format!("{}  {line}\n", clock(now)),
            Format::Json => serde_json::to_string(&progress)? + "\n",
            Format::Yaml => "---\n".to_owned() + &serde_yaml_ng::to_string(&progress)?,
        };
        (self.shown, self.line) = (Some(progress), line);
        Ok((text, code))
    }

    fn draw(&self, now: Timestamp) -> anyhow::Result<bool> {
        self.screen(now).map_or(Ok(true), |text| emit(&text))
    }

    /// What stands on the terminal: what was heard last, and since when nothing is.
    fn screen(&self, now: Timestamp) -> Option<String> {
        let progress = self.shown.as_ref()?;
        let stale = self.broken.as_ref().map_or_else(String::new, |(since, why)| {
            format!("NOT UPDATED since {}: {why}\nThe watch is taken up again by itself.\n\n", clock(*since))
        });
        // Times of what nobody hears of do not go on.
        let now = self.broken.as_ref().map_or(now, |(since, _)| *since);
        Some(HOME.to_owned() + &stale + &progress.text(now))
    }

    /// The watch broke.
    fn broken(&mut self, now: Timestamp, why: String) -> anyhow::Result<bool> {
        if !self.live || self.shown.is_none() {
            eprintln!("the watch broke and is taken up again: {why}");
            return Ok(true);
        }
        let since = self.broken.as_ref().map_or(now, |(since, _)| *since);
        self.broken = Some((since, why));
        self.draw(now)
    }
}
