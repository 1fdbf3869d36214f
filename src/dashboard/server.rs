//! The server: a thread and a runtime of its own, so that the workers never wait for it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use axum::extract::{DefaultBodyLimit, Form, Query, Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION, REFERRER_POLICY, SET_COOKIE,
    WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use physicnet_stream::SensorId;
use serde::Deserialize;
use tokio::sync::oneshot;

use super::door::Door;
use super::{Access, DashboardConfig};
use crate::telemetry::{Choice, Shown, Telemetry};

const PAGE: &str = include_str!("page/index.html");
const LOGIN: &str = include_str!("page/login.html");
const SCRIPTS: [(&str, &str); 4] = [
    ("/app.js", include_str!("page/app.js")),
    ("/fields.js", include_str!("page/fields.js")),
    ("/charts.js", include_str!("page/charts.js")),
    ("/colours.js", include_str!("page/colours.js")),
];
const STYLE: &str = concat!(include_str!("../page.css"), include_str!("page/style.css"));
/// Nothing from elsewhere, nothing inline, in nobody's frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' \
                      data:; connect-src 'self'; form-action 'self'; base-uri 'none'; \
                      frame-ancestors 'none'";

/// A dashboard that is served until this is dropped.
pub struct Served {
    address: SocketAddr,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Served {
    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Serves what `telemetry` knows, as `config` says.
///
/// # Errors
/// When the address is not to be had, or others could reach it without a token.
pub fn serve(config: &DashboardConfig, telemetry: &Telemetry) -> Result<Served> {
    let (wanted, access) = (config.address()?, config.access()?);
    let listener = std::net::TcpListener::bind(wanted).with_context(|| {
        format!(
            "dashboard.listen: cannot listen at {wanted}; if another program does, choose another \
             port, or 0 for any that is free"
        )
    })?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (end, ended) = oneshot::channel();
    let telemetry = telemetry.clone();
    let run = move || {
        runtime.block_on(async move {
            let listener = match tokio::net::TcpListener::from_std(listener) {
                Ok(listener) => Door::new(listener),
                Err(error) => return tracing::error!("the dashboard: {error}"),
            };
            let app = router(access, telemetry.clone());
            tokio::select! {
                _ = ended => {}
                () = look(telemetry) => {}
                served = axum::serve(listener, app) => {
                    if let Err(error) = served {
                        tracing::error!("the dashboard: {error}");
                    }
                }
            }
        });
    };
    let thread = std::thread::Builder::new().name("dashboard".to_owned()).spawn(run)?;
    Ok(Served { address, end: Some(end), thread: Some(thread) })
}

/// Takes the rates once a second.
async fn look(telemetry: Telemetry) {
    let mut clock = tokio::time::interval(Duration::from_secs(1));
    loop {
        clock.tick().await;
        telemetry.look();
    }
}

fn router(access: Access, telemetry: Telemetry) -> Router {
    let access = Arc::new(access);
    let mut closed = Router::new()
        .route("/", get(async || typed("text/html", PAGE)))
        .route("/style.css", get(async || typed("text/css", STYLE)))
        .route("/metrics", get(metrics))
        .route("/api/state", get(state))
        .route("/api/sensor", get(sensor));
    for (path, script) in SCRIPTS {
        closed = closed.route(path, get(async move || typed("text/javascript", script)));
    }
    let closed = closed
        .with_state(telemetry.clone())
        .layer(from_fn_with_state(Arc::clone(&access), admitted));
    let login = Router::new().route("/login", post(login)).with_state(access);
    let probes = Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(telemetry);
    closed.merge(login).merge(probes).layer(DefaultBodyLimit::max(4096)).layer(from_fn(guarded))
}

/// Lets a request pass, or shows the way in.
async fn admitted(
    State(access): State<Arc<Access>>,
    Query(Token { token }): Query<Token>,
    request: Request,
    next: Next,
) -> Response {
    if access.admits(request.headers()) {
        return next.run(request).await;
    }
    if !access.asks() {
        let why = "ask for this dashboard by localhost or 127.0.0.1; under another name it wants \
                   `dashboard.token_file`\n";
        return (StatusCode::MISDIRECTED_REQUEST, why).into_response();
    }
    // A link may bear the token once; the address is then without it.
    if request.uri().path() == "/" {
        return match token {
            Some(token) => enter(&access, &token),
            None => (StatusCode::UNAUTHORIZED, typed("text/html", LOGIN)).into_response(),
        };
    }
    let why = "this dashboard wants its token: send `Authorization: Bearer TOKEN`, the content of \
               the job's dashboard.token_file\n";
    (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, "Bearer")], why).into_response()
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
}

async fn login(State(access): State<Arc<Access>>, Form(Token { token }): Form<Token>) -> Response {
    enter(&access, token.unwrap_or_default().trim())
}

fn enter(access: &Access, token: &str) -> Response {
    match access.cookie().filter(|_| access.knows(token)) {
        Some(cookie) => (StatusCode::SEE_OTHER, [(LOCATION, "/".to_owned()), (SET_COOKIE, cookie)])
            .into_response(),
        None => {
            let again =
                LOGIN.replace("<!--refused-->", "<p role=\"alert\">That is not the token.</p>");
            (StatusCode::UNAUTHORIZED, typed("text/html", again)).into_response()
        }
    }
}

/// What holds of every answer.
async fn guarded(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let rules: [(HeaderName, &'static str); 4] = [
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (CACHE_CONTROL, "no-store"),
    ];
    for (name, value) in rules {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

fn typed<B: IntoResponse>(kind: &str, body: B) -> impl IntoResponse + use<B> {
    ([(CONTENT_TYPE, format!("{kind}; charset=utf-8"))], body)
}

async fn state(State(telemetry): State<Telemetry>) -> impl IntoResponse {
    Json(telemetry.state())
}

async fn metrics(State(telemetry): State<Telemetry>) -> impl IntoResponse {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], telemetry.metrics())
}

async fn healthz(State(telemetry): State<Telemetry>) -> impl IntoResponse {
    probe("alive", &telemetry.dead())
}

async fn readyz(State(telemetry): State<Telemetry>) -> impl IntoResponse {
    probe("ready", &telemetry.unready())
}

fn probe(well: &str, why: &[String]) -> impl IntoResponse + use<> {
    if why.is_empty() {
        (StatusCode::OK, format!("{well}\n"))
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, why.join("\n") + "\n")
    }
}

#[derive(Deserialize)]
struct Ask {
    sensor: String,
    #[serde(default)]
    channel: usize,
    /// `verified`, `newest`, or a reference time in nanoseconds since 1970.
    #[serde(default)]
    forecast: String,
    /// The version that the asker has.
    seen: Option<u64>,
}

async fn sensor(State(telemetry): State<Telemetry>, Query(ask): Query<Ask>) -> Response {
    let id = SensorId::from(&ask.sensor);
    let choice = match ask.forecast.as_str() {
        "" | "verified" => Choice::Verified,
        "newest" => Choice::Newest,
        time => match time.parse() {
            Ok(time) => Choice::At(time),
            Err(_) => {
                let why = "forecast: verified, newest, or nanoseconds since 1970\n";
                return (StatusCode::BAD_REQUEST, why).into_response();
            }
        },
    };
    if !telemetry.has(&id, ask.channel) {
        let why = format!("this job has no sensor \"{id}\" with a channel {}\n", ask.channel);
        return (StatusCode::NOT_FOUND, why).into_response();
    }
    match telemetry.show(&id, ask.channel, choice, ask.seen) {
        Shown::Bytes(bytes) => {
            ([(CONTENT_TYPE, "application/octet-stream")], bytes).into_response()
        }
        Shown::Same => StatusCode::NO_CONTENT.into_response(),
        Shown::Full(most) => {
            let why = format!("{most} others are being watched just now, and no more may be\n");
            (StatusCode::SERVICE_UNAVAILABLE, why).into_response()
        }
    }
}
