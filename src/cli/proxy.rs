//! The proxy between this program and the API server.

use std::net::IpAddr;

use http::Uri;
use hyper_util::client::proxy::matcher::Matcher;

#[derive(Debug, thiserror::Error)]
#[error("reading the proxy URL {proxy:?}: {source}")]
pub(crate) struct ProxyError {
    proxy: String,
    source: http::uri::InvalidUri,
}

/// The proxy for `server`, chosen as client-go does: the cluster's `proxy-url`, else the variable
/// HTTPS_PROXY (HTTP_PROXY for a server without TLS), unless NO_PROXY names the server's host or
/// the server is on this machine. kube 5.0 compares NO_PROXY with the proxy's own address, and a
/// name in it only together with the port.
pub(crate) fn choose(
    server: &Uri,
    proxy_url: Option<&str>,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Option<Uri>, ProxyError> {
    let either = |upper: &str| variable(upper).or_else(|| variable(&upper.to_ascii_lowercase()));
    let proxy = match proxy_url {
        Some(url) => url.to_owned(),
        None => {
            let name = match server.scheme_str() {
                Some("http") => "HTTP_PROXY",
                _ => "HTTPS_PROXY",
            };
            match either(name) {
                Some(url) if !is_excluded(server, &either("NO_PROXY").unwrap_or_default()) => url,
                _ => return Ok(None),
            }
        }
    };
    let with_scheme = match proxy.split_once("://") {
        // kube knows one of the two names, and resolves host names at the proxy for it.
        Some(("socks5h", rest)) => format!("socks5://{rest}"),
        Some(_) => proxy.clone(),
        None => format!("http://{proxy}"),
    };
    with_scheme
        .parse()
        .map(Some)
        .map_err(|source| ProxyError { proxy, source })
}

fn is_excluded(server: &Uri, no_proxy: &str) -> bool {
    let host = server.host().unwrap_or_default();
    let local = host == "localhost"
        || host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback());
    // The matcher knows neither the form `*.example.com` nor a port; Go's knows both.
    let port = format!(":{}", server.port_u16().unwrap_or(443));
    let entries: Vec<String> = no_proxy
        .split(',')
        .map(|entry| entry.trim().replace("*.", "."))
        .map(|entry| {
            entry
                .strip_suffix(&port)
                .map_or(entry.clone(), str::to_owned)
        })
        .collect();
    let matcher = Matcher::builder()
        .all("http://proxy.invalid")
        .no(entries.join(","))
        .build();
    local || matcher.intercept(server).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(server: &str, proxy_url: Option<&str>, variables: &[(&str, &str)]) -> Option<String> {
        let server = server.parse().unwrap_or_default();
        let variable = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        choose(&server, proxy_url, variable)
            .unwrap_or_else(|error| panic!("{error}"))
            .map(|uri| uri.to_string())
    }

    const SERVER: &str = "https://api.example.com:6443";

    #[test]
    fn proxy_url_of_the_kubeconfig_wins_over_variables() {
        let variables = [
            ("HTTPS_PROXY", "http://other:3128"),
            ("NO_PROXY", "example.com"),
        ];
        assert_eq!(
            chosen(SERVER, Some("socks5://127.0.0.1:1080"), &variables).as_deref(),
            Some("socks5://127.0.0.1:1080/")
        );
    }

    #[test]
    fn proxy_of_the_environment_is_used_by_the_scheme_of_the_server() {
        let variables = [("https_proxy", "proxy:3128"), ("HTTP_PROXY", "http://b:1")];
        assert_eq!(
            chosen(SERVER, None, &variables).as_deref(),
            Some("http://proxy:3128/")
        );
        assert_eq!(
            chosen("http://api.example.com", None, &variables).as_deref(),
            Some("http://b:1/")
        );
        assert_eq!(
            chosen(SERVER, Some("socks5h://p:1"), &[]).as_deref(),
            Some("socks5://p:1/")
        );
        assert_eq!(chosen(SERVER, None, &[]), None);
    }

    #[test]
    fn proxy_is_not_used_when_no_proxy_names_the_server() {
        let excluded = |server: &str, no_proxy: &str| {
            let variables = [("HTTPS_PROXY", "http://proxy:3128"), ("NO_PROXY", no_proxy)];
            chosen(server, None, &variables).is_none()
        };
        for no_proxy in [
            "api.example.com",
            "example.com",
            ".example.com",
            "*.example.com",
            "api.example.com:6443",
            "*",
            "a.b, api.example.com,",
        ] {
            assert!(excluded(SERVER, no_proxy), "{no_proxy}");
        }
        for no_proxy in [
            "",
            "ample.com",
            "10.0.0.0/8",
            "proxy",
            "api.example.com:443",
        ] {
            assert!(!excluded(SERVER, no_proxy), "{no_proxy}");
        }
        assert!(excluded("https://10.1.2.3:6443", "10.0.0.0/8"));
        assert!(excluded("https://127.0.0.1:6443", ""));
        assert!(excluded("https://[::1]:6443", ""));
    }
}
