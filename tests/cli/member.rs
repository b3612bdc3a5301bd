//! A member that says what a test tells it to: one thread, one request a connection.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

/// What it answers and what it was asked.
#[derive(Default)]
struct Script {
    cluster: String,
    /// Code and text of an answer to POST; none: 200.
    refusal: Option<(u16, String)>,
    drops_posts: bool,
    is_paused: bool,
    posted: Vec<String>,
    /// Paths of `/decisions` and `/what-if`.
    asked: Vec<String>,
    authorization: Option<String>,
    /// What a request such as `GET /history` is answered with.
    answers: BTreeMap<String, (u16, String)>,
    /// Its PostgreSQL was made anew.
    is_new: bool,
}

/// The thread ends with the process.
pub(crate) struct FakeMember {
    address: String,
    script: Arc<Mutex<Script>>,
}

/// An address at which nobody listens.
pub(crate) fn refusing_address() -> String {
    // Port 1 (tcpmux) is below what an unprivileged program could have.
    "127.0.0.1:1".to_owned()
}

pub(crate) fn text_of(document: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/documents").join(document);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

impl FakeMember {
    /// Answers `/cluster` with a file of `documents`, in which `ADDRESS` is its own and `NOBODY` one that refuses.
    pub(crate) fn start(document: &str) -> Self {
        let text = text_of(document);
        let listener = TcpListener::bind("127.0.0.1:0").expect("listens");
        let address = listener.local_addr().expect("an address").to_string();
        let cluster = text.replace("ADDRESS", &address).replace("NOBODY", &refusing_address());
        let script = Arc::new(Mutex::new(Script { cluster, ..Script::default() }));
        let shared = Arc::clone(&script);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                answer(stream, &shared);
            }
        });
        Self { address, script }
    }

    /// Accepts connections and says nothing.
    pub(crate) fn mute() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listens");
        let address = listener.local_addr().expect("an address").to_string();
        std::thread::spawn(move || {
            let mut open = Vec::new();
            for stream in listener.incoming().flatten() {
                open.push(stream);
            }
        });
        Self { address, script: Arc::default() }
    }

    pub(crate) fn address(&self) -> String {
        self.address.clone()
    }

    pub(crate) fn refuse_posts(&self, code: u16, text: &str) {
        self.script.lock().expect("not poisoned").refusal = Some((code, text.to_owned()));
    }

    pub(crate) fn drop_posts(&self) {
        self.script.lock().expect("not poisoned").drops_posts = true;
    }

    /// Answers a request such as `GET /history`, or one with this body behind its path, with this.
    pub(crate) fn answer(&self, request: &str, code: u16, text: &str) {
        let mut script = self.script.lock().expect("not poisoned");
        script.answers.insert(request.to_owned(), (code, text.to_owned()));
    }

    /// Path and body of each POST.
    pub(crate) fn posted(&self) -> Vec<String> {
        self.script.lock().expect("not poisoned").posted.clone()
    }

    /// The paths of `/decisions` and `/what-if` that were asked.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.script.lock().expect("not poisoned").asked.clone()
    }

    pub(crate) fn authorization(&self) -> Option<String> {
        self.script.lock().expect("not poisoned").authorization.clone()
    }
}

fn answer(mut stream: TcpStream, script: &Mutex<Script>) {
    let Some((head, body)) = request(&mut stream) else { return };
    let mut script = script.lock().expect("not poisoned");
    let mut words = head.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let is_change = !matches!(method, "GET" | "HEAD");
    let asked = format!("{method} {path}");
    let scripted = script.answers.get(&format!("{asked} {body}")).or_else(|| script.answers.get(&asked));
    if let Some((code, text)) = scripted.cloned() {
        if is_change {
            script.posted.push(format!("{method} {path} {body}").trim_end().to_owned());
            script.is_new |= path == "/reinitialize" && code == 200;
        }
        drop(script);
        return send(stream, code, "", &text);
    }
    let (code, body) = if method == "POST" {
        script.posted.push(format!("{path} {body}"));
        script.authorization = header(&head, "authorization");
        if script.drops_posts {
            return;
        }
        script.refusal.clone().unwrap_or((200, "Successfully switched over to \"node2\"".to_owned()))
    } else if method == "PATCH" {
        script.posted.push(format!("PATCH {path} {body}"));
        script.is_paused = body.contains("true");
        script.refusal.clone().unwrap_or((200, "{}".to_owned()))
    } else if path == "/config" {
        (200, format!("{{\"loop_wait\": 0, \"pause\": {}}}", script.is_paused))
    } else if path == "/patroni" && script.is_new {
        (200, text_of("status_new.json"))
    } else if path == "/patroni" && script.is_paused {
        (200, "{\"pause\": true}".to_owned())
    } else if path == "/patroni" {
        (200, "{\"server_version\": 150018, \"patroni\": {\"version\": \"0.1.0\"}}".to_owned())
    } else if let Some((_, document)) = ["decisions", "what-if"]
        .iter()
        .map(|name| (format!("/{name}"), format!("{name}.json")))
        .find(|(prefix, _)| path.starts_with(prefix))
    {
        script.asked.push(path.to_owned());
        if path.ends_with("nobody") {
            (404, "nobody is not a member of the cluster".to_owned())
        } else {
            (200, text_of(&document))
        }
    } else {
        (200, script.cluster.clone())
    };
    let reason = if code == 200 { "" } else { "pgherd-reason: node2 does not answer\r\n" };
    drop(script);
    send(stream, code, reason, &body);
}

fn send(mut stream: TcpStream, code: u16, headers: &str, body: &str) {
    let length = body.len();
    let text =
        format!("HTTP/1.1 {code} X\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}");
    if stream.write_all(text.as_bytes()).is_err() {
        // The tool went away: the test sees that by its status.
    }
}

fn request(stream: &mut TcpStream) -> Option<(String, String)> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = header(head, "content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
            if body.len() >= length {
                return Some((head.to_owned(), body.to_owned()));
            }
        }
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return None,
            Ok(count) => bytes.extend(buffer.iter().take(count)),
        }
    }
}

fn header(head: &str, name: &str) -> Option<String> {
    head.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim().to_owned())
}
