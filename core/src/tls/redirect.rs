//! Where plain HTTP is sent that is to be HTTPS (row 15).

use alloc::format;
use alloc::string::String;

/// The URL of the same host and URI over HTTPS: `host` as the client sent it, with or without port; `target` its path and
/// query; `https_port` the port that users reach, left out where it is 443 or not known (0).
pub fn to_https(host: &str, target: &str, https_port: u16) -> String {
    let after_address = host.rfind(']').map_or(0, |at| at + 1);
    let end = host[after_address..]
        .find(':')
        .map_or(host.len(), |at| after_address + at);
    let name = &host[..end];
    let target = if target.starts_with('/') { target } else { "/" };
    match https_port {
        0 | 443 => format!("https://{name}{target}"),
        port => format!("https://{name}:{port}{target}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_15_the_same_host_and_uri_and_the_port_where_it_is_not_443() {
        assert_eq!(
            to_https("Shop.example.org:8080", "/a?b=c&d", 443),
            "https://Shop.example.org/a?b=c&d"
        );
        assert_eq!(
            to_https("shop.example.org", "/", 8443),
            "https://shop.example.org:8443/"
        );
        assert_eq!(to_https("[2001:db8::1]:80", "/x", 8443), "https://[2001:db8::1]:8443/x");
        assert_eq!(to_https("shop.example.org", "*", 0), "https://shop.example.org/");
    }
}
