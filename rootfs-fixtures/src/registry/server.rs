//! A threaded HTTP server: one thread accepts, one serves each connection.

use std::collections::HashMap;
use std::io::{self, Read};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use nix::sys::socket::{Shutdown as How, shutdown};

use super::http::{HttpRequest, Response};

/// What a server does with requests.
pub(crate) trait Handler: Send + Sync + 'static {
    /// Answers; the token comes back in [`Handler::sent`].
    fn respond(&self, request: &HttpRequest) -> (Response, usize);

    /// Hears how many body bytes of the response with that token left.
    fn sent(&self, _token: usize, _bytes: usize) {}
}

/// A running server. Dropping it closes the listener and every connection, and joins the threads.
pub(crate) struct Server {
    listener: Arc<TcpListener>,
    state: Arc<State>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    stopping: AtomicBool,
    next: AtomicU64,
    connections: Mutex<HashMap<u64, TcpStream>>,
}

impl Server {
    /// Serves on `listener`.
    pub(crate) fn start(listener: TcpListener, handler: Arc<dyn Handler>) -> io::Result<Self> {
        let state = Arc::new(State::default());
        let listener = Arc::new(listener);
        let (accepting, accepting_on) = (Arc::clone(&state), Arc::clone(&listener));
        let acceptor = std::thread::Builder::new()
            .name("fixture-accept".to_owned())
            .spawn(move || accept(&accepting_on, &accepting, &handler))?;
        Ok(Self {
            listener,
            state,
            acceptor: Some(acceptor),
        })
    }

    /// Closes all connections, as a restart of the server would.
    pub(crate) fn drop_connections(&self) {
        for connection in self.state.connections().values() {
            // A connection that its client closed first is as closed as it can be.
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.state.stopping.store(true, Ordering::SeqCst);
        // Wakes the acceptor, also from a network namespace that cannot reach the listener.
        let _ = shutdown(self.listener.as_raw_fd(), How::Both);
        self.drop_connections();
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

impl State {
    fn connections(&self) -> MutexGuard<'_, HashMap<u64, TcpStream>> {
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }
}

fn accept(listener: &TcpListener, state: &Arc<State>, handler: &Arc<dyn Handler>) {
    let mut threads: Vec<JoinHandle<()>> = Vec::new();
    while let Ok((stream, _)) = listener.accept() {
        if state.stopping() {
            break;
        }
        threads.retain(|thread| !thread.is_finished());
        let Ok(twin) = stream.try_clone() else {
            continue;
        };
        let id = state.next.fetch_add(1, Ordering::Relaxed);
        state.connections().insert(id, twin);
        let (state, handler) = (Arc::clone(state), Arc::clone(handler));
        threads.push(std::thread::spawn(move || {
            // A client that vanishes or talks nonsense ends its own connection only.
            let _ = serve(stream, &state, handler.as_ref());
            state.connections().remove(&id);
        }));
    }
    for connection in state.connections().values() {
        let _ = connection.shutdown(Shutdown::Both);
    }
    for thread in threads {
        let _ = thread.join();
    }
}

fn serve(mut stream: TcpStream, state: &State, handler: &dyn Handler) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut spare = Vec::new();
    loop {
        let request = match HttpRequest::read(&mut stream, &mut spare) {
            Ok(Some(request)) => request,
            Ok(None) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return refuse(&mut stream, &error);
            }
            Err(error) => return Err(error),
        };
        let (response, token) = handler.respond(&request);
        let mut sent = 0;
        let kept = response.send(&mut stream, &request, &mut sent, &|| state.stopping());
        handler.sent(token, sent);
        if !kept? {
            return stream.shutdown(Shutdown::Both);
        }
    }
}

/// Says why, and lets the client finish speaking, so that it reads the answer and not a reset.
fn refuse(stream: &mut TcpStream, error: &io::Error) -> io::Result<()> {
    let request = HttpRequest {
        method: "GET".to_owned(),
        path: String::new(),
        query: String::new(),
        headers: Vec::new(),
        body: Vec::new(),
        keep_alive: false,
    };
    let response = Response::new(400, "text/plain", error.to_string().into_bytes());
    response.send(stream, &request, &mut 0, &|| true)?;
    stream.shutdown(Shutdown::Write)?;
    stream.set_read_timeout(Some(std::time::Duration::from_millis(200)))?;
    let mut rest = [0; 4096];
    while matches!(stream.read(&mut rest), Ok(1..)) {}
    Ok(())
}
