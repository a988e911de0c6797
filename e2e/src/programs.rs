//! The cluster's programs: which, from which pinned Go module, and building those that the cache lacks.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::command::run;
use crate::go::{self, AtLeast};
use crate::layout::cache;

/// Programs that come from one module, in `cluster/<name>/go.mod`.
pub struct Family {
    pub name: &'static str,
    pub version: &'static str,
    pub go: AtLeast,
    pub cgo: bool,
    pub tags: &'static str,
    pub ldflags: &'static str,
    pub output: Output,
    /// Whether `up` needs it.
    pub cluster: bool,
}

pub enum Output {
    /// (program, package)
    Programs(&'static [(&'static str, &'static str)]),
    /// `go test -c` of a package.
    TestProgram(&'static str, &'static str),
    /// A folder of a module's files: (name in the cache, module, folder).
    Files(&'static str, &'static str, &'static str),
}

const PLAIN: Family = Family {
    name: "",
    version: "",
    go: AtLeast::Go126,
    cgo: false,
    tags: "",
    ldflags: "-s -w",
    output: Output::Programs(&[]),
    cluster: true,
};

/// In the order in which they are built: what takes longest comes first.
pub const FAMILIES: &[Family] = &[
    Family {
        name: "kubernetes",
        version: "v1.37.1",
        // A version of 0.0.0 fails version checks of clients and of the node's own components.
        ldflags: "-s -w -X k8s.io/component-base/version.gitVersion=v1.37.1 \
                  -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=37",
        output: Output::Programs(&[
            ("kubectl", "k8s.io/kubernetes/cmd/kubectl"),
            ("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
            ("kubelet", "k8s.io/kubernetes/cmd/kubelet"),
            ("kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager"),
            ("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler"),
            ("kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy"),
        ]),
        ..PLAIN
    },
    Family {
        name: "etcd",
        version: "v3.7.3",
        output: Output::Programs(&[("etcd", "go.etcd.io/etcd/server/v3")]),
        ..PLAIN
    },
    Family {
        name: "containerd",
        version: "v2.4.2",
        tags: "no_btrfs,no_zfs,no_devmapper,no_aufs",
        output: Output::Programs(&[
            ("containerd", "github.com/containerd/containerd/v2/cmd/containerd"),
            ("containerd-shim-runc-v2", "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2"),
            ("ctr", "github.com/containerd/containerd/v2/cmd/ctr"),
        ]),
        ..PLAIN
    },
    Family {
        name: "runc",
        version: "v1.5.2",
        cgo: true,
        tags: "seccomp",
        output: Output::Programs(&[("runc", "github.com/opencontainers/runc")]),
        ..PLAIN
    },
    Family {
        name: "cni",
        version: "v1.9.1",
        output: Output::Programs(&[
            ("bridge", "github.com/containernetworking/plugins/plugins/main/bridge"),
            ("loopback", "github.com/containernetworking/plugins/plugins/main/loopback"),
            ("host-local", "github.com/containernetworking/plugins/plugins/ipam/host-local"),
            ("portmap", "github.com/containernetworking/plugins/plugins/meta/portmap"),
        ]),
        ..PLAIN
    },
    Family {
        name: "coredns",
        version: "v1.15.0",
        output: Output::Programs(&[("coredns", "github.com/coredns/coredns")]),
        ..PLAIN
    },
    Family {
        name: "metrics-server",
        version: "v0.9.0",
        output: Output::Programs(&[("metrics-server", "sigs.k8s.io/metrics-server/cmd/metrics-server")]),
        ..PLAIN
    },
    Family {
        name: "pause",
        version: "v1",
        output: Output::Programs(&[("pause", "meshwright.io/e2e/cluster/pause")]),
        ..PLAIN
    },
    Family {
        name: "gateway-api",
        version: "v1.7.0",
        go: AtLeast::Go127,
        output: Output::Files("gateway-api-crds", "sigs.k8s.io/gateway-api", "config/crd"),
        cluster: false,
        ..PLAIN
    },
    Family {
        name: "echo-basic",
        version: "v0.1.0",
        output: Output::Programs(&[("echo-basic", "sigs.k8s.io/gateway-api-conformance-images/echo-basic")]),
        cluster: false,
        ..PLAIN
    },
    Family {
        name: "echo-advanced",
        version: "v1",
        output: Output::Programs(&[("echo-advanced", "meshwright.io/e2e/cluster/echo-advanced")]),
        cluster: false,
        ..PLAIN
    },
    Family {
        name: "conformance",
        version: "v1.7.0",
        go: AtLeast::Go127,
        output: Output::TestProgram("gateway-conformance", "sigs.k8s.io/gateway-api/conformance"),
        cluster: false,
        ..PLAIN
    },
];

impl Family {
    pub fn by_name(name: &str) -> Result<&'static Self> {
        let names = || FAMILIES.iter().map(|f| f.name).collect::<Vec<_>>().join(", ");
        FAMILIES
            .iter()
            .find(|f| f.name == name)
            .with_context(|| format!("no family {name}: there are {}", names()))
    }

    /// What the family gives, by the names that [`path`] takes.
    pub fn products(&self) -> Vec<(&'static str, &'static str)> {
        match self.output {
            Output::Programs(programs) => programs.to_vec(),
            Output::TestProgram(name, package) => vec![(name, package)],
            Output::Files(name, module, _) => vec![(name, module)],
        }
    }

    pub fn missing(&self, root: &Path) -> Result<Vec<(&'static str, &'static str)>> {
        let mut missing = Vec::new();
        for (name, package) in self.products() {
            if !self.location(root, name)?.exists() {
                missing.push((name, package));
            }
        }
        Ok(missing)
    }

    fn module(&self, root: &Path) -> PathBuf {
        root.join("e2e/cluster").join(self.name)
    }

    /// The key holds everything that can change the result, so a change of it is never overlooked.
    fn location(&self, root: &Path, name: &str) -> Result<PathBuf> {
        let module = self.module(root);
        let go_mod = module.join("go.mod");
        let mut hash = Sha256::new();
        hash.update(fs::read(&go_mod).with_context(|| format!("reading {}", go_mod.display()))?);
        hash.update([self.tags, self.ldflags].join("\n"));
        // Of programs of our own the source is beside it.
        let folder = fs::read_dir(&module).with_context(|| format!("reading {}", module.display()))?;
        let files = folder.flatten().map(|entry| entry.path());
        let mut sources: Vec<_> =
            files.filter(|path| path.extension().is_some_and(|ext| ext == "go")).collect();
        sources.sort();
        for source in sources {
            hash.update(fs::read(&source).with_context(|| format!("reading {}", source.display()))?);
        }
        let key: String = hash.finalize().iter().take(4).map(|b| format!("{b:02x}")).collect();
        Ok(cache()?.join("bin").join(format!("{name}-{}-{key}", self.version)).join(name))
    }

    /// Builds what is missing, telling what it does.
    pub fn build(&self, root: &Path) -> Result<()> {
        for (name, package) in self.missing(root)? {
            let start = Instant::now();
            println!("  building {name} {} ...", self.version);
            let to = self.location(root, name)?;
            let dir = to.parent().context("a program's path has a folder")?;
            fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
            // Other builds of the same program may run at once: each has a file of its own, the last rename wins.
            let partial = dir.join(format!(".{name}.{}", std::process::id()));
            self.make(root, package, &partial)
                .with_context(|| format!("building {name} from e2e/cluster/{}/go.mod", self.name))?;
            if let Err(error) = fs::rename(&partial, &to) {
                let _ = fs::remove_dir_all(&partial);
                if !to.exists() {
                    return Err(error).with_context(|| format!("moving {name} to {}", to.display()));
                }
            }
            println!("  built {name} in {:.0} s", start.elapsed().as_secs_f64());
        }
        Ok(())
    }

    fn make(&self, root: &Path, package: &str, to: &Path) -> Result<()> {
        let mut go = go::command(self.go, &self.module(root))?;
        go.env("CGO_ENABLED", if self.cgo { "1" } else { "0" });
        match self.output {
            Output::Files(_, module, folder) => {
                let text = run(go.args(["mod", "download", "-json"]).arg(module))?;
                let found: serde_json::Value =
                    serde_json::from_str(&text).context("reading what go downloaded")?;
                let dir = found["Dir"].as_str().context("go did not say where the module is")?;
                return copy_tree(&Path::new(dir).join(folder), to);
            }
            Output::TestProgram(..) => go.args(["test", "-c"]),
            Output::Programs(_) => go.arg("build"),
        };
        go.args(["-mod=readonly", "-trimpath", "-ldflags", self.ldflags, "-tags", self.tags, "-o"]);
        run(go.arg(to).arg(package)).map(drop)
    }
}

/// Where a program is; an error if it was not built.
pub fn path(root: &Path, name: &str) -> Result<PathBuf> {
    for family in FAMILIES {
        if family.products().iter().any(|(product, _)| *product == name) {
            let path = family.location(root, name)?;
            if !path.exists() {
                bail!("{name} is not built: run `cluster build-programs {}`", family.name);
            }
            return Ok(path);
        }
    }
    bail!("no program {name}: the table is in e2e/src/programs.rs")
}

/// Where a program is; built first if need be.
pub fn ensure(root: &Path, name: &str) -> Result<PathBuf> {
    for family in FAMILIES {
        if family.products().iter().any(|(product, _)| *product == name) {
            family.build(root)?;
        }
    }
    path(root, name)
}

/// The folder of the Gateway API's CRDs, with one folder per channel: `standard`, `experimental`.
pub fn gateway_api_crds(root: &Path) -> Result<PathBuf> {
    ensure(root, "gateway-api-crds")
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("creating {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("reading {}", from.display()))?.flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            // The bytes only: files of a module are read-only, and their copies need not be.
            let bytes =
                fs::read(entry.path()).with_context(|| format!("reading {}", entry.path().display()))?;
            fs::write(&target, bytes).with_context(|| format!("writing {}", target.display()))?;
        }
    }
    Ok(())
}
