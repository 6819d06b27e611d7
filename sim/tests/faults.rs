//! What fails: nodes, managers, links, disks, apps and people; and everything at once.

use sim::scenario;
use sim::seed::sweep;

#[test]
fn a_task_that_ails_loses_nothing_that_others_can_answer() {
    sweep(1, scenario::ailing);
}

#[test]
fn apps_that_fail_harm_nobody_else() {
    sweep(1, scenario::apps);
}

#[test]
fn everything_at_random_and_then_it_settles() {
    sweep(1, scenario::chaos);
}

#[test]
fn proxies_that_hear_no_controller_serve_on() {
    sweep(1, scenario::controller_partition);
}

#[test]
fn an_address_that_another_service_gets_answers_for_nobody_else() {
    sweep(1, scenario::leader_change);
}

#[test]
fn proxies_understand_a_newer_controller() {
    sweep(1, scenario::newer_controller);
}

#[test]
fn a_lost_node_is_out_of_rotation_before_the_swarm_knows() {
    sweep(1, scenario::node_loss);
}

#[test]
fn a_mistake_of_an_operator_harms_its_own_service_alone() {
    sweep(1, scenario::operator_mistakes);
}

#[test]
fn without_quorum_nothing_changes() {
    sweep(1, scenario::quorum_loss);
}

#[test]
fn a_proxy_that_restarts_alone_serves_its_last_good_table_or_waits() {
    sweep(2, scenario::stored_table);
}

#[test]
fn no_stream_ends_for_a_change_that_does_not_concern_it() {
    sweep(1, scenario::streams);
}

#[test]
fn a_service_cluster_is_given_nothing_of_another() {
    sweep(1, scenario::two_clusters);
}

#[test]
fn two_controllers_agree_in_the_end() {
    sweep(1, scenario::two_controllers);
}

#[test]
fn no_more_requests_wait_than_may_and_all_places_are_given_back() {
    sweep(2, scenario::crowded);
}
