//! A pull-only registry on a loopback address, with authentication and faults on demand.
//!
//! It speaks the distribution API as far as pulling goes, keeps everything in memory and logs every
//! request for tests to read. It takes no uploads and never leaves the address it is given.

mod auth;
mod fault;
pub(crate) mod http;
mod respond;
mod route;
pub(crate) mod server;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use self::auth::Tokens;
pub use self::auth::{Auth, Login, TokenAuth, TokenStyle};
use self::fault::Faults;
pub use self::fault::{Fault, FaultId, Target, Times};
use self::respond::{RegistryHandler, StorageHandler};
use self::server::Server;
use crate::Content;

/// How a registry runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where it listens; port 0 takes any free one.
    pub listen: SocketAddr,
    /// Whom it lets pull.
    pub auth: Auth,
}

/// A running registry. It stops when dropped, with all its connections.
pub struct Registry {
    addr: SocketAddr,
    storage_addr: SocketAddr,
    state: Arc<State>,
    servers: [Server; 2],
}

/// One request, as it came and as it was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Which of the two listeners it reached.
    pub listener: Listener,
    /// `GET` or `HEAD`, or what else the client tried.
    pub method: String,
    /// The path without the query.
    pub path: String,
    /// The query without its question mark, empty if there is none.
    pub query: String,
    /// The `Range` header.
    pub range: Option<String>,
    /// The scheme of the `Authorization` header, such as `Basic`; never what follows.
    pub authorization: Option<String>,
    /// Whether the request was let in.
    pub authorized: bool,
    /// The status of the answer.
    pub status: u16,
    /// Bytes of the body that were written so far.
    pub sent: usize,
}

/// The two addresses of a registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    /// The distribution API and the token endpoint.
    Registry,
    /// Where [`Fault::Redirect`] leads.
    Storage,
}

/// What both listeners share.
pub(crate) struct State {
    pub(crate) auth: Auth,
    pub(crate) content: Mutex<Content>,
    pub(crate) tokens: Mutex<Tokens>,
    pub(crate) faults: Mutex<Faults>,
    pub(crate) log: Mutex<Vec<Request>>,
}

impl Default for Options {
    /// Any free port of 127.0.0.1, for everybody.
    fn default() -> Self {
        Self {
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            auth: Auth::Anonymous,
        }
    }
}

impl Options {
    /// A registry on any free port that wants a token for that user and password.
    #[must_use]
    pub fn with_token(user: &str, password: &str) -> Self {
        let auth = Auth::Token(TokenAuth::new(Login::new(user, password)));
        Self {
            auth,
            ..Self::default()
        }
    }

    /// A registry on any free port that wants that user and password.
    #[must_use]
    pub fn with_basic(user: &str, password: &str) -> Self {
        Self {
            auth: Auth::Basic(Login::new(user, password)),
            ..Self::default()
        }
    }
}

impl Registry {
    /// Serves `content` until dropped.
    ///
    /// The listener for redirected blobs takes a free port of the same address.
    ///
    /// # Errors
    /// When an address cannot be listened on, or a thread not be started.
    pub fn start(content: Content, options: Options) -> io::Result<Self> {
        let listener = TcpListener::bind(options.listen)?;
        let storage = TcpListener::bind((options.listen.ip(), 0))?;
        let (addr, storage_addr) = (listener.local_addr()?, storage.local_addr()?);
        let state = Arc::new(State {
            auth: options.auth,
            content: Mutex::new(content),
            tokens: Mutex::default(),
            faults: Mutex::default(),
            log: Mutex::default(),
        });
        let registry = RegistryHandler {
            state: Arc::clone(&state),
            addr,
            storage_addr,
        };
        let blobs = StorageHandler {
            state: Arc::clone(&state),
        };
        let servers = [
            Server::start(listener, Arc::new(registry))?,
            Server::start(storage, Arc::new(blobs))?,
        ];
        Ok(Self {
            addr,
            storage_addr,
            state,
            servers,
        })
    }

    /// Where the distribution API is.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where redirected blobs are.
    #[must_use]
    pub fn storage_addr(&self) -> SocketAddr {
        self.storage_addr
    }

    /// `ADDRESS:PORT/repository:tag`, as a client wants it.
    #[must_use]
    pub fn reference(&self, repository: &str, tag: &str) -> String {
        format!("{}/{repository}:{tag}", self.addr)
    }

    /// Changes what is served, from the next request on.
    pub fn update<T>(&self, change: impl FnOnce(&mut Content) -> T) -> T {
        change(&mut lock(&self.state.content))
    }

    /// Lets something go wrong, from the next request on. Several faults may strike one request.
    pub fn fault(&self, target: Target, fault: Fault, times: Times) -> FaultId {
        lock(&self.state.faults).arm(target, fault, times)
    }

    /// How many requests that fault has struck.
    #[must_use]
    pub fn fired(&self, fault: FaultId) -> u64 {
        lock(&self.state.faults).fired(fault)
    }

    /// Lets nothing go wrong any more; counts stay.
    pub fn clear_faults(&self) {
        lock(&self.state.faults).disarm_all();
    }

    /// Makes every token given so far invalid, as if it had expired.
    pub fn expire_tokens(&self) {
        lock(&self.state.tokens).revoke_all();
    }

    /// Closes all connections; the listeners stay.
    pub fn drop_connections(&self) {
        for server in &self.servers {
            server.drop_connections();
        }
    }

    /// All requests so far, in the order of their arrival.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        lock(&self.state.log).clone()
    }

    /// Forgets all requests so far. For a quiet moment: an answer that is being sent is forgotten
    /// as well.
    pub fn clear_requests(&self) {
        lock(&self.state.log).clear();
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry")
            .field("addr", &self.addr)
            .finish_non_exhaustive()
    }
}

/// A panicking test thread must not hide the log that explains it.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
