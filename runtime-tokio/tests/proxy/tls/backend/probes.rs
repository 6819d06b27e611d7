//! Active checks of apps that end TLS themselves.

use tidegate_core::pool::{EndpointView, State};

use super::*;

#[test]
fn active_checks_ask_over_tls_in_the_protocol_that_requests_are_sent_in() {
    run(async {
        for (alpn, protocol, version) in [(H1, "http1", Version::HTTP_11), (H2, "h2", Version::HTTP_2)] {
            let authority = Authority::new();
            let site = Site::start(authority.issue(&[HOST]), alpn, "fine").await;
            let labels = [
                CA,
                ("tidegate.probe_path", "/health"),
                ("tidegate.probe_interval", "100ms"),
                ("tidegate.backend_protocol", protocol),
            ];
            let (_proxy, _secrets) = proxy_trusting(&authority, snapshot([over_tls(&labels, &[site.app.addr])])).await;
            until("it is asked", async || !site.heard.borrow().is_empty()).await;
            let heard = site.heard();
            assert_eq!(heard.name.as_deref(), Some(HOST));
            assert_eq!((heard.head.version(), heard.head.uri().path()), (version, "/health"));
        }
    });
}

#[test]
fn active_checks_take_out_an_app_whose_certificate_is_not_trusted() {
    run(async {
        let (authority, stranger) = (Authority::new(), Authority::new());
        let sites = [
            Site::start(authority.issue(&[HOST]), H1, "fine").await,
            Site::start(stranger.issue(&[HOST]), H1, "strange").await,
        ];
        let labels = [CA, ("tidegate.probe_path", "/"), ("tidegate.probe_interval", "100ms")];
        let addrs = sites.each_ref().map(|site| site.app.addr);
        let (proxy, _secrets) = proxy_trusting(&authority, snapshot([over_tls(&labels, &addrs)])).await;
        until("the stranger is out", async || {
            let pool = proxy.pool("shop").await;
            let out = |one: &EndpointView| one.state == State::Probation;
            pool.counters.unfit == 1 && pool.endpoints.iter().any(|one| one.addr == addrs[1] && out(one))
        })
        .await;
        assert!(sites[1].heard.borrow().is_empty(), "nothing was said to it");
    });
}
