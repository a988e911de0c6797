//! `kubectl mesh` as a person runs it.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::Env;
use crate::product::{build_plugin, workspace};

/// The plugin, on the cluster of the tests.
pub struct Plugin {
    program: std::path::PathBuf,
    kubeconfig: std::ffi::OsString,
}

/// What came of a command.
pub struct Said {
    pub code: Option<i32>,
    /// Standard output, and after it standard error.
    pub text: String,
}

impl Plugin {
    /// Builds it.
    ///
    /// # Errors
    /// When that fails, or the cluster cannot be named.
    pub async fn of(env: &Env) -> Result<Self> {
        let program = tokio::task::spawn_blocking(build_plugin).await??;
        let folder = workspace().join("target/plugin");
        std::fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        let kubeconfig = env.cluster.kubeconfig(&folder)?;
        Ok(Self { program, kubeconfig })
    }

    /// Runs `kubectl mesh` with these words.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn run(&self, words: &str) -> Result<Said> {
        let mut command = Command::new(&self.program);
        command.args(words.split_whitespace()).env("KUBECONFIG", &self.kubeconfig);
        let output = tokio::task::spawn_blocking(move || command.output()).await?;
        let output = output.with_context(|| format!("start {}", self.program.display()))?;
        let text =
            [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        Ok(Said { code: output.status.code(), text })
    }

    /// Runs it, which has to end with this code; gives what it said, on one line.
    ///
    /// # Errors
    /// When it ends with another one.
    pub async fn says(&self, words: &str, code: i32) -> Result<String> {
        let said = self.run(words).await?;
        ensure!(
            said.code == Some(code),
            "kubectl mesh {words} ended with {:?}, not {code}:\n{}",
            said.code,
            said.text
        );
        // Lines are broken where a terminal ends; words are what is looked for.
        Ok(said.text.split_whitespace().collect::<Vec<_>>().join(" "))
    }

    /// Runs it with `-o json`; gives the code and what it said.
    ///
    /// # Errors
    /// When that is no JSON.
    pub async fn json(&self, words: &str) -> Result<(Option<i32>, Value)> {
        let said = self.run(&format!("{words} -o json")).await?;
        let value = serde_json::from_str(&said.text);
        Ok((said.code, value.with_context(|| format!("kubectl mesh {words}:\n{}", said.text))?))
    }
}
