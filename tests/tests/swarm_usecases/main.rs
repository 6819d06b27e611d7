//! The use cases of Interlock's users, each as a stack file of `deploy/examples/` on a real Swarm: the commands of its header
//! are answered as it says by every proxy, and so is what a header has no room for. One Swarm for all of them.

mod bad_input;
mod balancing;
mod clusters;
mod host_mode;
mod production;
mod routing;
mod sessions;
mod stacks;
mod tls;

use anyhow::Result;
use e2e::clock::now;
use e2e::scene::{Scene, effect};
use e2e::{gate, swarm};

use crate::stacks::Stacks;

#[test]
fn every_use_case_is_answered_as_its_example_says() {
    if !gate::may_run("swarm_usecases", swarm::obstacle()) {
        return;
    }
    let scene = Scene::set_up_for_use_cases().unwrap();
    let told = |result: Result<()>| scene.explained(result).unwrap();
    let mut stacks = Stacks::new(&scene);
    told(production::proxies_are_where_and_as_the_settings_say(&scene));
    // First, as new certificates may replace proxies that get them by Swarm alone.
    told(tls::ends_at_the_proxies_or_in_the_application(&mut stacks));

    let start = now();
    let as_it_is: &[(&str, &str)] = &[];
    for (stack, example, variables) in [
        ("canary", "canary", as_it_is),
        ("weight", "canary-weight", as_it_is),
        ("paths", "context-root", as_it_is),
        ("moved", "redirects", as_it_is),
        ("sessions", "sessions", as_it_is),
        ("sockets", "websockets", as_it_is),
        ("vip", "vip", as_it_is),
        ("host", "host-mode", &host_mode::ON_EVERY_NODE),
        ("regions", "service-clusters-apps", as_it_is),
    ] {
        told(stacks.deploy(stack, example, variables));
    }
    told(stacks.deploy("mesh", "host-mode", &host_mode::IN_THE_MESH_CLUSTER));
    told(stacks.try_all());
    effect(
        "docker stack deploy of ten use cases, to every answer of their headers by every proxy",
        start,
    );

    let sockets = routing::websockets_are_opened_on_any_path(&scene).unwrap();
    told(routing::paths_count_by_segments(&scene));
    told(routing::redirects_concern_their_host_alone(&scene));
    told(balancing::a_canary_has_the_share_of_its_tasks(&scene));
    told(balancing::a_weight_is_a_share_whatever_the_tasks(&scene));
    told(balancing::virtual_ips_stand_for_their_tasks(&scene));
    told(sessions::an_applications_cookie_leads_to_one_task(&scene));
    told(sessions::a_cookie_of_the_proxies_leads_to_one_task(&scene));
    told(sessions::a_clients_address_leads_to_one_task(&scene));
    told(host_mode::an_application_without_overlay_is_reached_at_its_nodes(
        &scene,
    ));
    told(host_mode::proxies_in_host_mode_see_their_clients(&scene));
    told(clusters::each_cluster_is_a_world_of_its_own(&scene));
    told(production::live_proxies_follow_the_settings(&scene));
    told(bad_input::concerns_itself_alone(&scene));
    told(routing::a_default_backend_has_what_nobody_claims(&mut stacks));
    told(routing::websockets_outlived_all_of_that(sockets));
    told(production::a_shorter_grace_replaces_proxies_one_by_one(&scene));
    told(stacks.remove());
}
