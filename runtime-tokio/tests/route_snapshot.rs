//! Snapshots of routes in a repository's own tests, as docs/route-tests.md shows them.

use std::path::Path;

#[test]
fn routes() {
    let stack = include_str!("../../deploy/examples/canary.yml");
    let tables = tidegate::table::compile(&[("canary.yml".into(), stack.into())], "shop", &|_| None).unwrap();
    insta::assert_snapshot!(tables.to_text());
}

#[test]
fn the_documentation_shows_the_test_above() {
    let own = include_str!("route_snapshot.rs");
    let begin = own.find("#[test]\nfn routes()").unwrap();
    let shown = &own[begin..begin + own[begin..].find("\n}\n").unwrap() + 3];
    let documentation = include_str!("../../docs/route-tests.md");
    assert!(
        documentation.contains(shown),
        "docs/route-tests.md should show:\n{shown}"
    );
}

/// What the stack files that users copy come to.
#[test]
fn examples() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples");
    let settings = "[clusters.default]\n[clusters.east]\nhttp_port = 8081\n[clusters.west]\nhttp_port = 8082\n";
    let mut names: Vec<String> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert!(names.len() > 10, "{names:?}");
    for name in names {
        let text = std::fs::read_to_string(folder.join(&name)).unwrap();
        let mut files = vec![(name.clone(), text)];
        if name.starts_with("service-clusters") {
            files.push(("tidegate.toml".into(), settings.into()));
        }
        let tables = tidegate::table::compile(&files, "stack", &|_| None).unwrap();
        assert!(!tables.refuses(), "{name}: {:?}", tables.diagnostics);
        insta::assert_snapshot!(format!("example {name}"), tables.to_text());
    }
}
