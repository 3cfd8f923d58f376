//! Notifications to systemd (`sd_notify(3)`): ready, reloading, stopping, the status line, and the
//! watchdog.
//!
//! Without systemd (no `NOTIFY_SOCKET`) nothing is sent. The sockets that systemd passes to the
//! daemon are in [`crate::daemon::SystemdSockets`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sd_notify::NotifyState;

use crate::daemon::{Liveness, LivenessProbe, Unresponsive};

/// The interval of status lines, unless the watchdog needs a shorter one.
const STATUS_INTERVAL: Duration = Duration::from_secs(30);

/// Reports that the daemon listens and accepts mail.
pub(super) fn ready() {
    notify(&[NotifyState::Ready]);
}

/// Reports that a reload has begun. [`reloaded`] reports its end.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        // `Type=notify-reload` requires the time in the same message.
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(error) => {
            tracing::warn!(%error, "cannot read the monotonic clock; the reload is not reported to systemd");
        }
    }
}

/// Reports that a reload has ended, with a status line.
pub(super) fn reloaded(status: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// A task that sends the status line and feeds the watchdog until it is dropped.
#[derive(Debug)]
pub(super) struct StatusNotifier {
    is_stopping: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
}

impl StatusNotifier {
    /// Starts the task. It probes the services at half the watchdog's interval, or every 30 seconds
    /// without a watchdog.
    pub(super) fn start(probe: LivenessProbe) -> Self {
        let is_stopping = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&is_stopping);
        let has_systemd = std::env::var_os("NOTIFY_SOCKET").is_some();
        let watchdog = sd_notify::watchdog_enabled();
        let task = tokio::spawn(async move {
            if has_systemd {
                run_notifier(&probe, watchdog, &flag).await;
            }
        });
        Self { is_stopping, task }
    }

    /// Reports that the daemon stops. From now on the watchdog is fed without probing, since the
    /// services end one after another; `[timeouts] drain` and the systemd unit limit the time for
    /// that.
    pub(super) fn stopping(&self) {
        self.is_stopping.store(true, Ordering::Relaxed);
        notify(&[
            NotifyState::Stopping,
            NotifyState::Status("Stopping: running deliveries may finish"),
        ]);
    }
}

impl Drop for StatusNotifier {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Probes the services at each interval and notifies systemd of the result.
async fn run_notifier(probe: &LivenessProbe, watchdog: Option<Duration>, is_stopping: &AtomicBool) {
    let period = watchdog.map_or(STATUS_INTERVAL, |interval| {
        (interval / 2).min(STATUS_INTERVAL)
    });
    let mut interval = tokio::time::interval(period);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut unresponsive = None;
    loop {
        interval.tick().await;
        if is_stopping.load(Ordering::Relaxed) {
            notify_alive(watchdog, None);
            continue;
        }
        match probe.probe(period).await {
            Ok(liveness) => {
                if unresponsive.take().is_some() {
                    tracing::info!("every service answers again");
                }
                if !is_stopping.load(Ordering::Relaxed) {
                    notify_alive(watchdog, Some(&status(liveness)));
                }
            }
            // A service that has stopped does not answer.
            Err(_) if is_stopping.load(Ordering::Relaxed) => {}
            Err(service) => report_unresponsive(service, &mut unresponsive),
        }
    }
}

/// Sends the status line, and feeds the watchdog if the unit has one.
fn notify_alive(watchdog: Option<Duration>, status: Option<&str>) {
    let alive = watchdog.map(|_| NotifyState::Watchdog);
    let messages: Vec<_> = alive
        .into_iter()
        .chain(status.map(NotifyState::Status))
        .collect();
    if !messages.is_empty() {
        notify(&messages);
    }
}

/// Reports a service that does not answer. The watchdog is not fed: if that continues, systemd
/// restarts the daemon.
fn report_unresponsive(service: Unresponsive, unresponsive: &mut Option<Unresponsive>) {
    if unresponsive.replace(service) != Some(service) {
        tracing::error!(error = %service, "a service does not answer; systemd's watchdog is not fed");
    }
    notify(&[NotifyState::Status(&format!("In trouble: {service}"))]);
}

/// Returns the status line.
fn status(now: Liveness) -> String {
    let Liveness {
        waiting,
        under_way,
        refused,
    } = now;
    let refused = match refused {
        0 => "none was refused for its TLS policy".to_owned(),
        1 => "1 attempt was refused for its TLS policy".to_owned(),
        _ => format!("{refused} attempts were refused for their TLS policy"),
    };
    format!("Queue: {waiting} waiting, {under_way} under way; since the start {refused}")
}

/// Sends states to systemd.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "cannot notify systemd");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_line_counts_queue_and_refusals() {
        let liveness = Liveness {
            waiting: 12,
            under_way: 3,
            refused: 0,
        };
        let calm =
            "Queue: 12 waiting, 3 under way; since the start none was refused for its TLS policy";
        assert_eq!(status(liveness), calm);
        let refused = status(Liveness {
            refused: 2,
            ..liveness
        });
        assert!(
            refused.ends_with("since the start 2 attempts were refused for their TLS policy"),
            "{refused}"
        );
    }
}
