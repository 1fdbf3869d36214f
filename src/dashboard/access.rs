//! Who may look: whoever is on this machine, or whoever knows the token.

use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, COOKIE, HOST};
use sha2::{Digest, Sha256};

/// No token is longer.
pub const MAX_TOKEN: usize = 256;
/// The cookie that a login leaves.
const NAME: &str = "physicnet";

/// What it takes to look.
#[derive(Clone)]
pub struct Access(Option<Known>);

#[derive(Clone)]
struct Known {
    token: [u8; 32],
    /// What the cookie says: it lets in, and does not tell the token.
    pass: String,
}

impl Access {
    /// Whoever is on this machine.
    pub(super) fn machine() -> Self {
        Self(None)
    }

    /// Whoever knows `token`.
    pub(super) fn token(token: &str) -> Self {
        let pass = hash(&format!("physicnet dashboard {token}"));
        let pass = pass.iter().map(|byte| format!("{byte:02x}")).collect();
        Self(Some(Known { token: hash(token), pass }))
    }

    /// Whether a token is asked for at all.
    pub(super) fn asks(&self) -> bool {
        self.0.is_some()
    }

    /// Whether this is the token.
    pub(super) fn knows(&self, token: &str) -> bool {
        let known = |known: &Known| token.len() <= MAX_TOKEN && same(&hash(token), &known.token);
        self.0.as_ref().is_none_or(known)
    }

    /// Whether a request with these headers may pass.
    pub(super) fn admits(&self, headers: &HeaderMap) -> bool {
        let Some(known) = &self.0 else { return from_here(headers) };
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let bearer = text(AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer "));
        let mut cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
        let pass = cookies
            .find_map(|all| {
                let mut pairs = all.split(';').filter_map(|pair| pair.trim().split_once('='));
                pairs.find_map(|(name, value)| (name == NAME).then_some(value))
            })
            .is_some_and(|pass| same(&hash(pass), &hash(&known.pass)));
        pass || bearer.is_some_and(|token| self.knows(token.trim()))
    }

    /// The cookie that lets in whoever has shown the token. Scripts do not see it, and other
    /// sites' requests do not bear it, but for a link that is followed from there.
    pub(super) fn cookie(&self) -> Option<String> {
        let pass = &self.0.as_ref()?.pass;
        Some(format!("{NAME}={pass}; HttpOnly; SameSite=Lax; Path=/; Max-Age=2592000"))
    }
}

/// Whether the request was made to this machine by its own name: a page of another site may bring
/// a browser here under a name that it has pointed at us.
fn from_here(headers: &HeaderMap) -> bool {
    let host = headers.get(HOST).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let name = host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()));
    let name = name.map_or(host, |(name, _)| name).trim_matches(['[', ']']);
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn hash(text: &str) -> [u8; 32] {
    Sha256::digest(text).into()
}

/// Compares in a time that does not tell where they differ.
fn same(a: &[u8; 32], b: &[u8; 32]) -> bool {
    std::hint::black_box(a.iter().zip(b).fold(0, |all, (a, b)| all | (a ^ b))) == 0
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderName;

    use super::*;

    fn headers(name: HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().unwrap())])
    }

    #[test]
    fn a_token_lets_in_and_nothing_else_does() {
        let access = Access::token("correct-horse");
        assert!(access.admits(&headers(AUTHORIZATION, "Bearer correct-horse")));
        let cookie = access.cookie().unwrap();
        let (pass, _) = cookie.split_once(';').unwrap();
        assert!(!cookie.contains("correct-horse"));
        assert!(access.admits(&headers(COOKIE, &format!("other=1; {pass}"))));
        for (name, value) in [
            (AUTHORIZATION, "Bearer correct-hors"),
            (AUTHORIZATION, "Bearer "),
            (AUTHORIZATION, "correct-horse"),
            (COOKIE, "physicnet=correct-horse"),
            (HOST, "localhost"),
        ] {
            assert!(!access.admits(&headers(name, value)), "{value}");
        }
        assert!(!access.admits(&HeaderMap::new()));
    }

    #[test]
    fn without_one_this_machine_is_let_in_by_its_own_name() {
        let access = Access::machine();
        for host in ["localhost:8080", "127.0.0.1:1", "[::1]:8080", "localhost"] {
            assert!(access.admits(&headers(HOST, host)), "{host}");
        }
        for host in ["evil.example:8080", "127.0.0.1.evil.example", "10.0.0.1:8080", ""] {
            assert!(!access.admits(&headers(HOST, host)), "{host}");
        }
    }
}
