//! Where a redirect leads.

use hyper::Uri;

use crate::contract::hook::{Address, Http};

/// What follows from the Location of a response.
pub enum Next {
    /// The same host: this request follows.
    Follow(Box<Http>),
    /// Another host, or from TLS to none: not followed, because headers and body are for the first host.
    Elsewhere,
    /// It cannot be read.
    Unreadable,
}

/// The request that follows. `keeps` tells whether method and body stay the same (307 and 308).
pub fn follow(from: &Http, location: &str, keeps: bool) -> Next {
    let Ok(uri) = location.parse::<Uri>() else { return Next::Unreadable };
    let (address, tls) = match (uri.host(), uri.scheme_str()) {
        (Some(host), Some(scheme)) => {
            let tls = scheme.eq_ignore_ascii_case("https");
            if !tls && !scheme.eq_ignore_ascii_case("http") {
                return Next::Unreadable;
            }
            let host = host.trim_start_matches('[').trim_end_matches(']');
            if !host.eq_ignore_ascii_case(&from.address.host) || (from.tls && !tls) {
                return Next::Elsewhere;
            }
            let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
            (Address { host: from.address.host.clone(), port }, tls)
        }
        // `//host/path` has a host and no scheme.
        (Some(_), None) | (None, Some(_)) => return Next::Unreadable,
        (None, None) => (from.address.clone(), from.tls),
    };
    let path = uri.path_and_query().map_or("/", |p| p.as_str());
    let path = if path.starts_with('/') { path.to_owned() } else { format!("{}{path}", folder(&from.path)) };
    let body = if keeps { from.body.clone() } else { None };
    Next::Follow(Box::new(Http { address, tls, path, headers: from.headers.clone(), body }))
}

/// The part of a path up to its last slash, without its query.
fn folder(path: &str) -> &str {
    let path = path.split('?').next().unwrap_or_default();
    path.rfind('/').map_or("/", |at| &path[..=at])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::hook::Body;

    fn from(tls: bool) -> Http {
        let address = Address { host: "a.example".into(), port: 8080 };
        Http { address, tls, path: "/x/y?z".into(), body: Some(Body::default()), ..Http::default() }
    }

    fn to(tls: bool, location: &str) -> String {
        match follow(&from(tls), location, false) {
            Next::Follow(next) => format!("{}{}", next.label(), next.path),
            Next::Elsewhere => "elsewhere".into(),
            Next::Unreadable => "unreadable".into(),
        }
    }

    #[test]
    fn only_the_same_host_is_followed() {
        assert_eq!(to(false, "/b"), "httpGet http://a.example:8080/b");
        assert_eq!(to(false, "http://A.example/b?c"), "httpGet http://a.example:80/b?c");
        assert_eq!(to(false, "https://a.example/b"), "httpGet https://a.example:443/b");
        assert_eq!(to(true, "http://a.example/b"), "elsewhere", "headers would go without TLS");
        assert_eq!(to(false, "http://b.example/"), "elsewhere");
        assert_eq!(to(false, "http://a.example.evil/"), "elsewhere");
        for wrong in ["ftp://a.example/", "http://[", "\u{1}"] {
            assert_eq!(to(false, wrong), "unreadable", "{wrong}");
        }
    }

    #[test]
    fn the_body_goes_along_only_where_the_method_stays() {
        let has_body = |keeps| match follow(&from(false), "/b", keeps) {
            Next::Follow(next) => next.body.is_some(),
            _ => false,
        };
        assert!(has_body(true) && !has_body(false));
    }
}
