//! DNS: from a recipient domain and its connector's route to hops.
