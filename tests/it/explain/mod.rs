//! `gatepost explain` and `gatepost check --against` as an administrator runs them: the real
//! program, a real name server, a real policy host, and a real daemon where one is needed.

mod against;
mod dane;
mod hello;
mod inbound;
mod mta_sts;
mod outbound;
mod user;
mod world;
