//! The reports to senders, and what is passed on so that others report: a real daemon, real
//! sockets, and reports that are read as a program would read them (RFC 3461, RFC 3464).

mod addresses;
mod backscatter;
mod confidential;
mod delays;
mod explained;
mod failures;
mod gathered;
mod groups;
mod notify;
mod own_schedule;
mod passing;
mod postmaster;
mod requiretls;
