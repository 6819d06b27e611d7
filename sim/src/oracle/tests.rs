use super::*;
use crate::client::Channel;

/// Service, host, path, tasks that serve.
type ClaimRow<'a> = (&'a str, &'a str, &'a str, usize);

fn oracle(eras: &[(u64, &[ClaimRow<'_>])]) -> Oracle {
    let eras = eras.iter().map(|(from, claims)| Era {
        from: Instant::from_millis(*from),
        claims: claims
            .iter()
            .map(|(service, host, path, serving)| Claim {
                service: (*service).to_owned(),
                hosts: vec![(*host).to_owned()],
                path: (*path).to_owned(),
                is_deserted: *serving == 0,
                serving: (0..*serving)
                    .map(|task| format!("{service}.{task}").as_str().into())
                    .collect(),
            })
            .collect(),
    });
    Oracle {
        eras: eras.collect(),
        ..Oracle::default()
    }
}

fn got(sent: u64, path: &str, code: u16, service: Option<&str>) -> Vec<Outcome> {
    vec![Outcome {
        sent: Instant::from_millis(sent),
        done: Instant::from_millis(sent + 10),
        wish: Wish {
            host: "shop".to_owned(),
            path: path.to_owned(),
            channel: Channel::Clear,
        },
        method: http::Method::GET,
        once_only: false,
        proxy: [10, 0, 0, 9].into(),
        answer: Answer::Status {
            code,
            service: service.map(str::to_owned),
            task: None,
        },
    }]
}

fn judge(oracle: &Oracle, outcomes: &[Outcome]) -> [bool; 3] {
    let grace = Duration::from_millis(100);
    let witness = Witness::default();
    let seen = Seen {
        oracle,
        outcomes,
        grace,
        witness: &witness,
    };
    [
        no_request_lost(seen),
        only_owners_answer(seen),
        unknown_is_refused(seen),
    ]
    .map(|verdict| verdict.is_ok())
}

#[test]
fn an_error_while_a_task_serves_is_a_lost_request() {
    let served = oracle(&[(0, &[("a", "shop", "/", 1)])]);
    assert_eq!(judge(&served, &got(500, "/", 502, None)), [false, true, true]);
    assert_eq!(judge(&served, &got(500, "/", 200, Some("a"))), [true; 3]);
    let gone = oracle(&[(0, &[("a", "shop", "/", 0)])]);
    assert_eq!(judge(&gone, &got(500, "/", 503, None)), [true; 3]);
}

#[test]
fn who_is_blind_answers_by_what_lives_on_and_follows_once_it_sees() {
    let claim = |tasks: &[&str]| Claim {
        service: "a".to_owned(),
        hosts: vec!["shop".to_owned()],
        path: "/".to_owned(),
        serving: tasks.iter().map(|task| TaskId::from(*task)).collect(),
        is_deserted: tasks.is_empty(),
    };
    let era = |from, tasks: &[&str]| Era {
        from: Instant::from_millis(from),
        claims: vec![claim(tasks)],
    };
    let at = Instant::from_millis;
    let mut oracle = Oracle {
        eras: vec![
            era(0, &[]),
            era(100, &["1", "2"]),
            era(1000, &["2", "3"]),
            era(3000, &["3"]),
        ],
        ..Oracle::default()
    };
    let lost = |oracle: &Oracle, sent| !judge(oracle, &got(sent, "/", 502, None))[0];
    assert!(lost(&oracle, 1000) && lost(&oracle, 3050));
    oracle.blinds(at(500));
    oracle.sees(at(4000));
    assert!(lost(&oracle, 1050) && lost(&oracle, 2500), "task 2 served all the time");
    assert!(!lost(&oracle, 3050), "nobody that it may know lives on");
    assert!(lost(&oracle, 4200), "it sees again");
}

/// `shop` is `a`'s from 1000 on, and nobody's before; the product is blind from 3000 on.
#[test]
fn a_proxy_that_starts_while_the_product_is_blind_answers_by_the_table_of_its_node() {
    let mut oracle = oracle(&[(0, &[]), (1000, &[("a", "shop", "/", 1)])]);
    let at = Instant::from_millis;
    oracle.blinds(at(3000));
    let lost = |witness: &Witness| {
        let outcomes = got(4000, "/", 503, None);
        let seen = Seen {
            oracle: &oracle,
            outcomes: &outcomes,
            grace: Duration::from_millis(100),
            witness,
        };
        no_request_lost(seen).is_err()
    };
    let proxy = [10, 0, 0, 9].into();
    for (stored, started, is_lost) in [
        (500, 3500, false),
        (2000, 3500, true),
        (500, 1500, true),
        (500, 4500, true),
    ] {
        let witness = Witness::default();
        witness.starts_from_table(proxy, at(stored), at(started));
        assert_eq!(lost(&witness), is_lost, "stored {stored}, started {started}");
    }
    let witness = Witness::default();
    witness.starts_from_table([10, 9, 9, 9].into(), at(500), at(3500));
    assert!(lost(&witness), "another proxy did");
}

#[test]
fn a_request_that_reaches_another_service_is_told_though_nobody_answers_it() {
    let eras = oracle(&[(0, &[("a", "shop", "/", 1), ("b", "blog", "/", 1)])]);
    let witness = Witness::default();
    let judge = |witness: &Witness| {
        only_owners_are_asked(Seen {
            oracle: &eras,
            outcomes: &[],
            grace: Duration::ZERO,
            witness,
        })
    };
    let arrives = |service: &str, host: &str| {
        let what = Arrival {
            service: service.to_owned(),
            host: host.to_owned(),
            path: "/".to_owned(),
        };
        witness.arrival(&"t1".into(), what, [10, 0, 0, 9].into(), Instant::from_millis(40_000));
    };
    arrives("a", "shop");
    assert_eq!(judge(&witness), Ok(()));
    arrives("b", "shop");
    assert_eq!(
        judge(&witness),
        Err("40.000s: a request for shop/ reached b".to_owned())
    );
}

#[test]
fn what_reaches_a_task_that_is_to_go_is_told_once_there_was_time_to_follow() {
    let eras = oracle(&[(0, &[("a", "shop", "/", 2)])]);
    let witness = Witness::default();
    let judge = |witness: &Witness| {
        nobody_asks_who_leaves(Seen {
            oracle: &eras,
            outcomes: &[],
            grace: Duration::from_millis(1000),
            witness,
        })
        .is_ok()
    };
    let arrives = |at| {
        let what = Arrival {
            service: "a".to_owned(),
            host: "shop".to_owned(),
            path: "/".to_owned(),
        };
        witness.arrival(&"t1".into(), what, [10, 0, 0, 9].into(), Instant::from_millis(at));
    };
    witness.leaves(&"t1".into(), Instant::from_millis(20_000));
    arrives(21_500);
    assert!(judge(&witness), "it may have been under way");
    arrives(21_700);
    assert!(!judge(&witness));
    witness.blow(Instant::from_millis(15_000), ["a".to_owned()].into(), &[], "a crash");
    assert!(judge(&witness), "a proxy uses what it has after a crash");
}

#[test]
fn what_a_fault_struck_is_excused_for_as_long_as_nobody_can_know() {
    let served = oracle(&[(0, &[("a", "shop", "/", 1)])]);
    let witness = Witness::default();
    witness.blow(Instant::from_millis(500), ["a".to_owned()].into(), &[], "a crash");
    let judge = |sent| {
        let outcomes = got(sent, "/", 502, None);
        no_request_lost(Seen {
            oracle: &served,
            outcomes: &outcomes,
            grace: Duration::from_millis(100),
            witness: &witness,
        })
        .is_ok()
    };
    let late = 500 + u64::try_from(OWN_EYES.as_millis()).unwrap() + 1;
    assert_eq!([480, 495, 600, late].map(judge), [false, true, true, false]);
}

#[test]
fn a_stream_whose_ends_live_on_may_not_end() {
    let witness = Witness::default();
    let judge = |witness: &Witness| {
        let seen = Seen {
            oracle: &Oracle::default(),
            outcomes: &[],
            grace: Duration::ZERO,
            witness,
        };
        no_stream_lost(seen).is_ok()
    };
    witness.stream(StreamEnd {
        opened: Instant::from_millis(100),
        ended: Instant::from_millis(900),
        service: "a".to_owned(),
        task: "t1".into(),
        proxy: [10, 0, 0, 9].into(),
        why: "reset".to_owned(),
    });
    assert!(!judge(&witness));
    witness.exits([10, 0, 0, 8].into(), Instant::from_millis(800));
    assert!(!judge(&witness), "that was another proxy");
    witness.ends(&"t1".into(), Instant::from_millis(800));
    assert!(judge(&witness));
}

#[test]
fn a_stream_may_end_by_a_blow_to_its_own_task_while_that_is_fresh() {
    let late = 1000 + u64::try_from(STREAM_ENDS.as_millis()).unwrap() + 1;
    let judge = |struck: &str, ended: u64| {
        let witness = Witness::default();
        witness.blow(
            Instant::from_millis(1000),
            ["a".to_owned()].into(),
            &[struck.into()],
            "a cut",
        );
        witness.stream(StreamEnd {
            opened: Instant::from_millis(100),
            ended: Instant::from_millis(ended),
            service: "a".to_owned(),
            task: "t1".into(),
            proxy: [10, 0, 0, 9].into(),
            why: "no echo".to_owned(),
        });
        let seen = Seen {
            oracle: &Oracle::default(),
            outcomes: &[],
            grace: Duration::ZERO,
            witness: &witness,
        };
        no_stream_lost(seen).is_ok()
    };
    assert!(judge("t1", 6000));
    assert!(!judge("t2", 6000), "another task of its service was struck");
    assert!(!judge("t1", late), "it lived on");
    assert!(!judge("t1", 900), "it ended before");
}

#[test]
fn a_stream_may_end_with_its_proxy() {
    let judge = |exited| {
        let witness = Witness::default();
        let proxy = [10, 0, 0, 9].into();
        witness.stream(StreamEnd {
            opened: Instant::from_millis(100),
            ended: Instant::from_millis(900),
            service: "a".to_owned(),
            task: "t1".into(),
            proxy,
            why: "end of file".to_owned(),
        });
        witness.exits(proxy, Instant::from_millis(exited));
        let seen = Seen {
            oracle: &Oracle::default(),
            outcomes: &[],
            grace: Duration::ZERO,
            witness: &witness,
        };
        no_stream_lost(seen).is_ok()
    };
    assert_eq!([890, 900, 901].map(judge), [true, true, false]);
}

#[test]
fn after_the_grace_time_the_old_owner_may_not_answer_any_more() {
    let moved = oracle(&[(0, &[("a", "shop", "/", 1)]), (1000, &[("b", "shop", "/", 1)])]);
    assert!(judge(&moved, &got(1050, "/", 200, Some("a")))[1]);
    assert!(!judge(&moved, &got(1150, "/", 200, Some("a")))[1]);
    assert!(judge(&moved, &got(1150, "/", 200, Some("b")))[1]);
}

#[test]
fn the_longest_path_owns_and_an_unknown_path_is_not_found() {
    let two = oracle(&[(0, &[("a", "shop", "/x", 1), ("b", "shop", "/x/y", 1)])]);
    assert!(!judge(&two, &got(500, "/x/y/z", 200, Some("a")))[1]);
    assert!(judge(&two, &got(500, "/x/yz", 200, Some("a")))[1]);
    assert!(judge(&two, &got(500, "/z", 404, None))[2]);
    assert!(!judge(&two, &got(500, "/z", 503, None))[2]);
}

#[test]
fn who_waits_longer_than_may_be_for_nobody_is_told_of() {
    let deserted = oracle(&[(0, &[("a", "shop", "/", 0)]), (40_000, &[("a", "shop", "/", 1)])]);
    let witness = Witness::default();
    let holds = |sent, took| {
        let mut outcomes = got(sent, "/", 503, None);
        outcomes[0].done = outcomes[0].sent + Duration::from_millis(took);
        let seen = Seen {
            oracle: &deserted,
            outcomes: &outcomes,
            grace: Duration::ZERO,
            witness: &witness,
        };
        nobody_waits_in_vain(seen).is_ok()
    };
    assert!(holds(1000, 10_100));
    assert!(!holds(1000, 12_100) && !holds(1000, 30_000));
    assert!(holds(20_000, 25_000), "somebody came");
}
