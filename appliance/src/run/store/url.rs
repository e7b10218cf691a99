//! Check of the URLs of a store.

use redis::{ConnectionAddr, IntoConnectionInfo};

/// Returns a description of what is wrong with a URL of a store; `None` if it can be used.
pub(crate) fn url_error(url: &str, is_cluster: bool) -> Option<String> {
    let info = match url.into_connection_info() {
        Ok(info) => info,
        Err(_) => {
            return Some(format!(
                "`{}` is not a URL such as \"redis://10.0.0.9:6379\", \"rediss://store:6379\" or \
                 \"unix:///run/redis.sock\"",
                without_secret(url)
            ));
        }
    };
    if info.redis_settings().password().is_some() {
        return Some("a URL holds no password: `store.password_file` does".to_owned());
    }
    match info.addr() {
        ConnectionAddr::TcpTls { insecure: true, .. } => {
            Some("a certificate is always checked: `#insecure` is not supported".to_owned())
        }
        ConnectionAddr::Unix(_) if is_cluster => {
            Some("the nodes of a cluster are reached by TCP".to_owned())
        }
        _ => None,
    }
}

/// Returns a URL without what stands before the host.
fn without_secret(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://...@{host}"),
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_a_host_or_a_socket_and_hold_no_secret() {
        for url in [
            "redis://10.0.0.9",
            "redis://store.example:6380/2",
            "rediss://user@store.example:6379",
            "unix:///run/redis/redis.sock",
            "redis://[2001:db8::1]:6379",
        ] {
            assert_eq!(url_error(url, false), None, "{url}");
        }
        for (url, is_cluster, wanted) in [
            ("http://10.0.0.9", false, "is not a URL"),
            ("10.0.0.9:6379", false, "is not a URL"),
            ("redis://:secret@10.0.0.9", false, "holds no password"),
            (
                "unix:///run/redis.sock?pass=secret",
                false,
                "holds no password",
            ),
            ("rediss://10.0.0.9/#insecure", false, "always checked"),
            ("unix:///run/redis.sock", true, "by TCP"),
        ] {
            let error = url_error(url, is_cluster).unwrap();
            assert!(error.contains(wanted), "{url}: {error}");
            assert!(!error.contains("secret"), "{url}: {error}");
        }
        let error = url_error("rodis://me:secret@host", false).unwrap();
        assert!(!error.contains("secret"), "{error}");
    }
}
