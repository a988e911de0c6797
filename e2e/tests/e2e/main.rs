//! End-to-end tests on the real cluster. `make test` starts it, installs `target/dist` and runs these one after another;
//! the module `deletion` comes last, because it takes the mesh away.

mod api;
mod bookinfo;
mod deletion;
mod env;
mod faults;
mod gateway;
mod mesh;
mod node_proxies;
mod policy;
mod signals;
mod tcp_route;
mod under_load;
mod upgrade;
