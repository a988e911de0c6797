//! Runs nft in pods' namespaces.

use std::{
    collections::BTreeMap,
    io::Write,
    path::PathBuf,
    process::{Command, Output, Stdio},
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context, bail, ensure};

use super::{
    netns::Netns,
    rules::{Guard, Rules, TABLE, creating, refusing, remove, replacing},
};

/// More kinds of rules than a node's pods have at a time.
const REMEMBERED: usize = 1024;

/// The nft program, and how it shows what it was given.
#[derive(Debug, Clone)]
pub struct Nft {
    program: PathBuf,
    shown: Arc<Mutex<BTreeMap<(Rules, Guard), String>>>,
}

impl Nft {
    /// None of its listings is known yet.
    pub fn new(program: PathBuf) -> Self {
        Self { program, shown: Arc::default() }
    }

    /// Gives the namespace these rules and no others of ours, at once or not at all.
    ///
    /// # Errors
    /// When nft or the kernel refuses them; then everything is as it was.
    pub fn apply(&self, netns: &Netns, rules: Rules, guard: &Guard) -> anyhow::Result<()> {
        self.script(netns, &replacing(rules, guard)).context("set the rules")?;
        self.learn(netns, rules, guard)
    }

    /// The same where there should be no rules of ours. Replacing rules makes the kernel wait for every packet under way, which takes three
    /// times as long.
    ///
    /// # Errors
    /// As there.
    pub fn establish(&self, netns: &Netns, rules: Rules, guard: &Guard) -> anyhow::Result<()> {
        match self.script(netns, &creating(rules, guard)) {
            Ok(()) => self.learn(netns, rules, guard),
            Err(_) => self.apply(netns, rules, guard),
        }
    }

    /// Has the namespace refuse this plaintext, and changes none of our other rules.
    ///
    /// # Errors
    /// As there.
    pub fn refuse(&self, netns: &Netns, guard: &Guard) -> anyhow::Result<()> {
        self.script(netns, &refusing(guard)).context("refuse plaintext")
    }

    fn learn(&self, netns: &Netns, rules: Rules, guard: &Guard) -> anyhow::Result<()> {
        let key = (rules, guard.clone());
        if !self.shown().contains_key(&key) {
            // Each release shows rules in its own way; this one's is what later listings are compared with.
            let listing = self.list(netns)?;
            let mut shown = self.shown();
            // Policies change, and what none asks for any more would stay for ever.
            if shown.len() >= REMEMBERED {
                shown.clear();
            }
            shown.insert(key, listing);
        }
        Ok(())
    }

    /// Whether exactly these rules are there. They are not if they were never set by this process.
    pub fn has(&self, netns: &Netns, rules: Rules, guard: &Guard) -> bool {
        let expected = self.shown().get(&(rules, guard.clone())).cloned();
        expected.is_some_and(|expected| self.list(netns).is_ok_and(|listing| listing == expected))
    }

    /// Takes all rules of ours away.
    ///
    /// # Errors
    /// When nft or the kernel refuses that.
    pub fn clear(&self, netns: &Netns) -> anyhow::Result<()> {
        self.script(netns, &remove()).context("remove the rules")
    }

    /// Changes the rules of the node itself.
    ///
    /// # Errors
    /// When nft or the kernel refuses that; then everything is as it was.
    pub fn on_node(&self, script: &str) -> anyhow::Result<()> {
        self.start(&["-f", "-"], script).map(drop)
    }

    fn list(&self, netns: &Netns) -> anyhow::Result<String> {
        let output =
            self.run(netns, &["-nn", "list", "table", "inet", TABLE], "").context("list the rules")?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn script(&self, netns: &Netns, script: &str) -> anyhow::Result<()> {
        self.run(netns, &["-f", "-"], script).map(drop)
    }

    fn run(&self, netns: &Netns, args: &[&str], input: &str) -> anyhow::Result<Output> {
        // The child begins where the thread is that starts it.
        netns.within(|| self.start(args, input))
    }

    fn start(&self, args: &[&str], input: &str) -> anyhow::Result<Output> {
        let mut child = Command::new(&self.program)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {}", self.program.display()))?;
        match child.stdin.take() {
            // It may end without reading everything; then its exit status says more than the broken pipe.
            Some(mut stdin) => _ = stdin.write_all(input.as_bytes()),
            None => bail!("nft has no standard input"),
        }
        let output = child.wait_with_output().context("wait for nft")?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "nft {}: {}", args.join(" "), error.trim());
        Ok(output)
    }

    fn shown(&self) -> std::sync::MutexGuard<'_, BTreeMap<(Rules, Guard), String>> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
