//! Seeds that once failed, with one sentence each.

use sim::scenario;
use sim::seed;

fn holds(seed: u64, story: fn(&seed::Seed)) {
    if let Err(failure) = seed::run(seed, story) {
        panic!("{}", seed::describe(&failure));
    }
}

/// On a fresh Swarm the list of secrets is empty; when it arrived last, the controller never made its first identity.
#[test]
fn a_list_without_content_that_arrives_last_holds_nothing_up() {
    holds(0x66, scenario::routing);
}

/// What was lost with its nodes came back task by task, and the first answer of DNS about a service vouched for addresses
/// that it did not have: one of them was another service's by then.
#[test]
fn an_answer_of_dns_vouches_for_no_address_that_it_misses() {
    holds(0x68, scenario::quorum_loss);
}

/// A node ends an unhealthy task with nobody told: a request under way there that may not be sent again is nobody's fault.
#[test]
fn what_ends_unannounced_is_not_blamed_on_a_proxy() {
    holds(0x10, scenario::apps);
}

/// A task of a killed dockerd serves on for seconds and then falls silent: a POST that is written by then is nobody's fault.
#[test]
fn what_is_cut_off_long_after_its_dockerd_died_is_not_blamed_on_a_proxy() {
    holds(0xd3, scenario::node_loss);
}

/// A POST whose head alone reached an app that then drops the connection was not carried out, and is sent again.
#[test]
fn what_an_app_never_had_the_whole_of_may_be_sent_again() {
    holds(0x406, scenario::apps);
}

/// A node ends a proxy and nobody is told, as its dockerd was killed and starts again, or as the proxy is unhealthy: who asks it
/// then is refused by nobody's fault.
#[test]
fn a_proxy_that_its_node_ends_unannounced_is_not_blamed() {
    holds(0x422, scenario::chaos);
    holds(0x425, scenario::chaos);
}

/// Two controllers died one after the other while a proxy looked for one: the table that it serves by meanwhile is not its fault.
#[test]
fn a_proxy_that_finds_no_controller_serves_on_by_its_last_table() {
    holds(0x47f, scenario::streams);
}

/// The Swarm said that a task of a lost node was over while a request waited there in doubt: nobody told the request that nobody
/// answers, as the pool had forgotten the endpoint.
#[test]
fn a_request_is_not_left_at_an_endpoint_that_no_table_has_any_more() {
    holds(0x2711, scenario::chaos);
}

/// A proxy that drains is frozen and goes on: it takes nobody new, as before.
#[test]
fn a_proxy_that_drains_and_was_frozen_is_not_blamed() {
    holds(0x4e27, scenario::chaos);
}

/// The only other task was on a manager whose dockerd had been killed long before, which no Swarm without a leader says: what leaves
/// is all that there is.
#[test]
fn a_task_that_leaves_may_be_used_while_the_others_are_on_a_lost_node() {
    holds(0x9c65, scenario::chaos);
}

/// Proxies got an identity that trusted none but an authority in its last year, did not believe controllers, and Docker rolled them
/// back to one that was gone; controllers took their own wish, which had waited, for what was rolled back.
#[test]
fn proxies_that_were_rolled_back_get_the_identity_that_was_made_meanwhile() {
    holds(0x3ec, scenario::identities);
}

/// The only controller died, and a proxy moved to a node whose table was older than a host: it cannot know that.
#[test]
fn a_proxy_that_starts_without_controllers_is_not_blamed_for_the_table_of_its_node() {
    holds(0x111df, scenario::random);
}

/// A user saw the end of its stream in the very millisecond in which its proxy ended, which the witness was told one step later.
#[test]
fn a_stream_may_end_in_the_same_moment_as_its_proxy() {
    holds(0x15fd3, scenario::chaos);
}

/// Somebody took away a label of the proxies after they had removed them three times: a write that is undone for the sixth time
/// is repeated after half a minute, as the controller says, and the story asked for less.
#[test]
fn whoever_undoes_a_write_again_and_again_waits_for_the_next_one() {
    holds(0x1_add0, scenario::operator_mistakes);
}

/// A task that waited for its turn on a manager that crashed and came back was said to be over, and its address was given to
/// another one while it ran (the simulated Swarm).
#[test]
fn a_task_that_waits_for_its_turn_outlives_a_crash_of_its_node() {
    holds(0x1_d557, scenario::chaos);
}
