//! The service through its router and over sockets, with a small network that is really computed.

mod checkpoints;
mod hostile;
mod leases;
mod s3;
mod sockets;
mod stored;
mod support;
mod tenants;
mod whole;
