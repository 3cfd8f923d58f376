//! The entry point of libFuzzer: one program for all targets; the environment variable
//! `FUZZ_TARGET` names one.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| gatepost_fuzz::run(input));
