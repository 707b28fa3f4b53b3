//! openraft's own suite on the storage, and groups of three nodes in one process.

mod cluster;
mod crash;
mod history;
mod leadership;
mod suite;
