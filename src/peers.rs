//! What becomes of this process when another one of its cluster goes.

use std::panic::{PanicHookInfo, set_hook, take_hook};
use std::sync::Once;

/// Ends the process with a line about it when the connection to one of `hosts` breaks.
///
/// A cluster is one fate: without the other process no frontier moves any more, and timely's
/// threads for the connection panic. That is meant to end the process, and its backtraces would
/// tell nobody what to do.
pub(crate) fn end_with_them(hosts: &[String]) {
    let hosts = hosts.to_vec();
    let usual = take_hook();
    set_hook(Box::new(move |panic| {
        let Some(why) = broken(panic) else { return usual(panic) };
        // Each connection has two threads, and others break when this process ends.
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            let (peer, why) = (peer().unwrap_or_default(), why.trim());
            tracing::error!(
                "process {peer} at {} has gone ({why}); a cluster ends together: its own log says \
                 why it went. Start every process again, and the job goes on where its sinks are \
                 durable",
                hosts.get(peer).map_or("?", String::as_str)
            );
            std::process::exit(1);
        });
    }));
}

/// What timely says of a connection that has broken.
fn broken<'a>(panic: &'a PanicHookInfo<'_>) -> Option<&'a str> {
    panic.payload_as_str()?.strip_prefix("timely communication error:").filter(|_| peer().is_some())
}

/// The process that this thread is connected to: timely names its threads for them.
fn peer() -> Option<usize> {
    let thread = std::thread::current();
    let name = thread.name()?;
    ["timely:recv-", "timely:send-"].iter().find_map(|of| name.strip_prefix(of)?.parse().ok())
}
