//! Following an upgrade: on a terminal the screen is drawn anew, elsewhere a line is added for each change.

use std::{io::IsTerminal, pin::pin, process::ExitCode, time::Duration};

use anyhow::bail;
use futures::StreamExt;
use k8s_openapi::jiff::Timestamp;
use kube::{
    Api, Client, ResourceExt,
    runtime::{WatchStreamExt, watcher, watcher::watch_object},
};
use meshwright_api::MeshControlPlane;

use super::progress::Progress;
use crate::{
    args::Format,
    client,
    output::{clock, emit},
};

mod end;
#[cfg(test)]
mod tests;

use end::{end, goes_on};

/// Goes home, and at the end clears what was left below.
const HOME: &str = "\x1b[H\x1b[2J";

/// Follows until the upgrade ends, or until nobody reads any more; where none is under way it waits for one. The watch is
/// taken up again by itself.
pub async fn follow(client: Client, mesh: &MeshControlPlane, format: Format) -> anyhow::Result<ExitCode> {
    let (namespace, name) = (mesh.namespace().unwrap_or_default(), mesh.name_any());
    let api: Api<MeshControlPlane> = Api::namespaced(client, &namespace);
    let mut changes = pin!(watch_object(api, &name).default_backoff());
    let mut screen = Screen::new(format, format == Format::Text && std::io::stdout().is_terminal());
    let mut second = tokio::time::interval(Duration::from_secs(1));
    loop {
        let is_read = tokio::select! {
            change = changes.next() => match change {
                Some(Ok(Some(mesh))) => {
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
                        eprintln!("the watch broke and is taken up again: {why}");
                        true
                    }
                },
                Some(Ok(None)) | None => bail!("MeshControlPlane {namespace}/{name} is gone"),
            },
            // Times go on while nothing changes.
            _ = second.tick(), if screen.live => screen.draw(Timestamp::now())?,
        };
        if !is_read {
            return Ok(ExitCode::SUCCESS);
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
    /// An upgrade to follow was under way.
    seen: bool,
}

impl Screen {
    fn new(format: Format, live: bool) -> Self {
        Self { format, live, shown: None, line: String::new(), seen: false }
    }

    /// What to print, and the exit code once there is nothing more to follow.
    fn changed(
        &mut self,
        mesh: &MeshControlPlane,
        now: Timestamp,
    ) -> anyhow::Result<(String, Option<ExitCode>)> {
        let progress = Progress::new(mesh);
        let code = end(mesh, self.seen);
        self.seen |= goes_on(mesh);
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
        match &self.shown {
            Some(progress) => emit(&(HOME.to_owned() + &progress.text(now))),
            None => Ok(true),
        }
    }
}
