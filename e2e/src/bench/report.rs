//! Lines `name: value unit`.

use std::path::Path;

use anyhow::{Context, Result};

/// What was measured so far.
#[derive(Debug, Default)]
pub struct Report(String);

impl Report {
    /// Prints a figure and keeps it. Counts and microseconds have no decimals, ratios have two, everything else has one.
    pub fn add(&mut self, name: &str, value: f64, unit: &str) {
        let line = line(name, value, unit);
        println!("{line}");
        self.0 += &line;
        self.0.push('\n');
    }

    /// Writes all of it.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        }
        std::fs::write(path, &self.0).with_context(|| format!("write {}", path.display()))
    }
}

fn line(name: &str, value: f64, unit: &str) -> String {
    let decimals = match unit {
        "ratio" => 2,
        "ms" | "s" | "kB" | "MB" | "MiB" => 1,
        _ => 0,
    };
    format!("{name}: {value:.decimals$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::line;

    #[test]
    fn a_line_is_name_value_unit() {
        assert_eq!(
            line("route applied to first 200, p50", 12.34, "ms"),
            "route applied to first 200, p50: 12.3 ms"
        );
        assert_eq!(line("mesh to static", 1.156, "ratio"), "mesh to static: 1.16 ratio");
        assert_eq!(line("status writes", 1000.0, "writes"), "status writes: 1000 writes");
    }
}
