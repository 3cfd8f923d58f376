//! Orders for more messages than one page of the queue has.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::commands::filled;
use crate::support::operated::{code, err, raw};

/// The requests that a daemon has had: the page that was asked for, or the ids of an order.
type Requests = Arc<Mutex<Vec<String>>>;

/// Answers one request of a daemon whose queue has a page of one message, another page of one message,
/// and the report that a bounce of either has made.
fn answer(mut stream: UnixStream, [first, second, report]: &[Value; 3], requests: &Requests) {
    let mut request = BufReader::new(stream.try_clone().expect("a descriptor"));
    let (mut line, mut head) = (String::new(), String::new());
    request.read_line(&mut line).expect("a request");
    while request.read_line(&mut head).expect("a head") > 2 {}
    let head = head.to_lowercase();
    let length = head.split("content-length:").nth(1);
    let length = length.and_then(|rest| rest.lines().next()?.trim().parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    request.read_exact(&mut body).expect("a body");
    let mut requests = requests.lock().expect("nobody panicked");
    let is_order = |request: &String| request.starts_with("order");
    let reply = if line.starts_with("POST") {
        let order: Value = serde_json::from_slice(&body).expect("JSON");
        let ids: Vec<_> = order["ids"].as_array().expect("ids").clone();
        requests.push(format!("order {}", json!(ids)));
        let done = |id| json!({"id": id, "done": true, "error": null});
        json!({"answers": ids.iter().map(done).collect::<Vec<_>>()})
    } else if line.contains("after=") {
        let is_made = requests.iter().any(is_order);
        requests.push("second page".to_owned());
        let made = is_made.then_some(report);
        let messages: Vec<_> = std::iter::once(second).chain(made).collect();
        json!({"messages": messages, "next": null})
    } else {
        requests.push("first page".to_owned());
        json!({"messages": [first], "next": first["id"]})
    };
    let (reply, length) = (reply.to_string(), reply.to_string().len());
    let _ = write!(
        stream,
        "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{reply}"
    );
}

fn serve(socket: &Path, messages: [Value; 3], requests: Requests) {
    let listener = UnixListener::bind(socket).expect("nobody is there");
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            answer(stream, &messages, &requests);
        }
    });
}

/// A retry starts with the first page before the second is listed: with a hundred thousand messages,
/// the last is listed much later. Other orders make reports, which a later list has, and which the
/// order must not be for: they are listed to the end before the first is ordered.
#[test]
fn a_retry_goes_page_by_page_and_no_other_order_does() {
    let (mut relay, _) = filled();
    let request = "GET /v1/queue HTTP/1.1\r\nHost: x\r\n\r\n";
    let listed = raw(&relay.socket(), request).1;
    relay.stop();
    let (first, second) = (&listed["messages"][0], &listed["messages"][1]);
    let mut report = second.clone();
    report["id"] = json!("7zzzzzzzzzzz0");
    let (first_id, second_id) = (&first["id"], &second["id"]);
    let requests = Requests::default();
    let messages = [first.clone(), second.clone(), report];
    serve(&relay.socket(), messages, Arc::clone(&requests));

    let one = |id: &Value| format!("order [{id}]");
    let (listed, both) = (
        ["first page", "second page"].map(str::to_owned),
        format!("order [{first_id},{second_id}]"),
    );
    let by_page = [
        listed[0].clone(),
        one(first_id),
        listed[1].clone(),
        format!("order [{second_id},\"7zzzzzzzzzzz0\"]"),
    ];
    let at_once = [listed[0].clone(), listed[1].clone(), both];
    for (arguments, expected) in [
        (&["retry", "--all"][..], &by_page[..]),
        (&["bounce", "--all", "--yes"], &at_once),
        (&["hold", "--all"], &at_once),
        (&["remove", "--all", "--yes"], &at_once),
    ] {
        let output = relay.queue(arguments);
        assert_eq!(code(&output), 0, "{arguments:?}: {}", err(&output));
        let found = std::mem::take(&mut *requests.lock().expect("nobody panicked"));
        assert_eq!(found, expected, "{arguments:?}");
    }
}
