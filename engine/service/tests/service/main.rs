//! The service through its router and over sockets, with a small network that is really computed.

mod checkpoints;
mod hostile;
mod leases;
mod sockets;
mod support;
mod tenants;
mod whole;
