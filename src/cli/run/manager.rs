//! What systemd is told (`sd_notify(3)`): ready, reloading, stopping, how things stand, and that we are alive.
//!
//! Without systemd (no `NOTIFY_SOCKET`) nobody listens and nothing happens. What it passes to us is in
//! [`crate::daemon::SystemdSockets`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sd_notify::NotifyState;

use crate::daemon::{Liveness, LivenessProbe, Unresponsive};

/// How often the status is told where no watchdog asks for more.
const STATUS_EVERY: Duration = Duration::from_secs(30);

/// The daemon listens and takes mail.
pub(super) fn ready() {
    notify(&[NotifyState::Ready]);
}

/// The configuration is being read anew. What became of it follows with [`reloaded`].
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        // One message: systemd wants the stamp beside it (`Type=notify-reload`).
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "systemd is not told of the reload, the system has no clock for it"),
    }
}

/// The reload has ended; `outcome` is for people.
pub(super) fn reloaded(outcome: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(outcome)]);
}

/// Signs of life, for as long as this is not dropped.
#[derive(Debug)]
pub(super) struct Heart {
    stopping: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
}

impl Heart {
    /// Begins to feel the pulse, and to tell systemd of it: at half the watchdog's interval, or every 30
    /// seconds for the status alone.
    pub(super) fn start(pulse: LivenessProbe) -> Self {
        let stopping = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stopping);
        // Without NOTIFY_SOCKET there is nobody to tell.
        let manager = std::env::var_os("NOTIFY_SOCKET").is_some();
        let watchdog = sd_notify::watchdog_enabled();
        let task = tokio::spawn(async move {
            if manager {
                beat(&pulse, watchdog, &told).await;
            }
        });
        Self { stopping, task }
    }

    /// The daemon stops. From now on the parts end one by one, and how long that may take is bounded by
    /// `[timeouts] drain` and by the unit.
    pub(super) fn stopping(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        notify(&[NotifyState::Stopping, NotifyState::Status("Stopping: deliveries in flight may finish")]);
    }
}

impl Drop for Heart {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn beat(pulse: &LivenessProbe, watchdog: Option<Duration>, stopping: &AtomicBool) {
    let every = watchdog.map_or(STATUS_EVERY, |interval| (interval / 2).min(STATUS_EVERY));
    let mut beats = tokio::time::interval(every);
    beats.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut silent = None;
    loop {
        beats.tick().await;
        if stopping.load(Ordering::Relaxed) {
            feed(watchdog, None);
            continue;
        }
        match pulse.probe(every).await {
            Ok(standing) => {
                if silent.take().is_some() {
                    tracing::info!("every part gives signs of life again");
                }
                if !stopping.load(Ordering::Relaxed) {
                    feed(watchdog, Some(&status(standing)));
                }
            }
            // What has been told to stop gives no sign of life.
            Err(_) if stopping.load(Ordering::Relaxed) => {}
            Err(part) => missed(part, &mut silent),
        }
    }
}

/// Tells the status, and that we are alive where that is wanted.
fn feed(watchdog: Option<Duration>, status: Option<&str>) {
    let alive = watchdog.map(|_| NotifyState::Watchdog);
    let all: Vec<_> = alive.into_iter().chain(status.map(NotifyState::Status)).collect();
    if !all.is_empty() {
        notify(&all);
    }
}

/// A part is silent: systemd is not told that we are alive, and restarts us if that goes on.
fn missed(part: Unresponsive, silent: &mut Option<Unresponsive>) {
    if silent.replace(part) != Some(part) {
        tracing::error!(error = %part, "no sign of life from a part of the daemon; systemd's watchdog is not fed");
    }
    notify(&[NotifyState::Status(&format!("In trouble: {part}"))]);
}

fn status(now: Liveness) -> String {
    let Liveness { waiting, under_way, refused } = now;
    let refused = match refused {
        0 => "none was refused for its TLS policy".to_owned(),
        1 => "1 attempt was refused for its TLS policy".to_owned(),
        _ => format!("{refused} attempts were refused for their TLS policy"),
    };
    format!("Queue: {waiting} waiting, {under_way} under way; since the start {refused}")
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "systemd could not be told");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_a_sentence() {
        let standing = Liveness { waiting: 12, under_way: 3, refused: 0 };
        let calm = "Queue: 12 waiting, 3 under way; since the start none was refused for its TLS policy";
        assert_eq!(status(standing), calm);
        let refused = status(Liveness { refused: 2, ..standing });
        assert!(refused.ends_with("since the start 2 attempts were refused for their TLS policy"), "{refused}");
    }
}
